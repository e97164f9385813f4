"""`Part`: what one process hands out of every batch, where several train together.

May import nothing of the package.
"""

import jax
import numpy as np
from jaxtyping import Int

Part = tuple[int, int]
"""(index, count): which of how many equal parts."""


def this_part(part: Part | None) -> Part:
    """The part given; by default this process's own, of as many as there are processes.

    Raises `ValueError` for an index that is not one of so many.

    >>> this_part((0, 2))
    (0, 2)
    """
    index, count = (jax.process_index(), jax.process_count()) if part is None else part
    if not 0 <= index < count:
        raise ValueError(f"part={part}: give (index, count), as in part=(0, {max(1, count)})")
    return index, count


def share(tokens: int, part: Part) -> int:
    """Tokens of one part of a batch. Raises `ValueError` where they cannot be equal."""
    _, count = part
    if tokens % count:
        whole = max(1, tokens // count) * count
        raise ValueError(
            f"a batch of {tokens} tokens cannot be shared out among {count} processes:"
            f" batch={whole}"
        )
    return tokens // count


def own_rows(n: int, part: Part) -> Int[np.ndarray, "context"]:
    """Which of n contexts a part reads: every count-th. Raises `ValueError` for too few."""
    index, count = part
    if n < count:
        raise ValueError(f"{n} contexts cannot be shared out among {count} processes: more text")
    return np.arange(index, n, count)


def equal_batches(tokens: Int[np.ndarray, "context"], part: Part, size: int) -> int:
    """How many batches of `size` every part can hand out, by the tokens of each context."""
    _, count = part
    return min(int(tokens[own_rows(len(tokens), (i, count))].sum()) for i in range(count)) // size
