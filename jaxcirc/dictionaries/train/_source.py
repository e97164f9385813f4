"""`Source`: where activations come from, and how a run finds its place in them again.

May import nothing of the package.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Batch = tuple[Float[Array, "token d_in"], Float[Array, "token d_out"]]
"""Inputs and targets of one step; the same array twice for an autoencoder."""


@runtime_checkable
class Source(Protocol):
    """Batches of activations for some places of a model at once.

    `state` and `restore` make a run exactly resumable: after `restore(state())`, `batch()` gives
    what it would have given. A state is a flat dictionary of numpy arrays that counts batches
    *handed out*, never those fetched ahead.

    Optional: `batches`, an upper bound of how many there are from beginning to end (None where it
    is not known), which is compared with a run before its first step; and `part`, (index, count) of
    several processes.
    """

    @property
    def places(self) -> tuple[str, ...]:
        """Names such as "resid_post.12"; a dictionary is trained for each."""
        ...

    @property
    def facts(self) -> dict:
        """What a result must record: model, site, mask, text, context length, tokens."""
        ...

    def batch(self) -> Mapping[str, Batch]:
        """The next batch of every place, of the same tokens. Raises `StopIteration` at the end."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Where the next batch begins."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go to where `state` was taken."""
        ...


class Arrays:
    """Any iterable of arrays [token d] as a source of one place; resuming skips what was used.

    >>> fit([config], Arrays(batches, "resid_post.12"))
    """

    def __init__(self, arrays: Iterable[np.ndarray], place: str = "activations"):
        self._arrays, self.places, self.facts = arrays, (place,), {"source": "arrays"}
        self._rest: Iterator = iter(arrays)
        self._used = 0

    @property
    def batches(self) -> int | None:
        """How many there are; None for an iterator."""
        return len(self._arrays) if isinstance(self._arrays, Sized) else None

    def batch(self) -> Mapping[str, Batch]:
        x = jnp.asarray(next(self._rest))
        if x.ndim < 2:
            raise ValueError(
                f"an array has shape {x.shape}: give arrays [token d], as in"
                " fit(config, activations.reshape(-1, 2048, 576))"
            )
        self._used += 1
        return {self.places[0]: (x, x)}

    def state(self) -> dict[str, np.ndarray]:
        return {"used": np.asarray(self._used)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        used, again = int(state["used"]), iter(self._arrays)
        if again is not self._arrays:
            self._rest, self._used = again, 0
        if used < self._used:
            raise ValueError("an iterator cannot start over: give a list, or an iterable that can")
        for _ in itertools.islice(self._rest, used - self._used):
            self._used += 1
        if self._used < used:
            raise ValueError(f"the source has {self._used} arrays, the run has used {used}")


class RanOut(UserWarning):
    """A source has ended before it gave as many tokens as were wanted."""


Plain = str | int | float | bool | None


def comparable(facts: Mapping[str, Any]) -> dict[str, Plain]:
    """Flat, by dotted names, as JSON will give them back."""
    flat, rest = {}, [("", facts)]
    while rest:
        name, value = rest.pop()
        if isinstance(value, Mapping):
            rest += [(f"{name}.{key}".strip("."), item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            rest += [(f"{name}.{i}".strip("."), item) for i, item in enumerate(value)]
        else:
            plain = value is None or isinstance(value, str | int | float)
            flat[name] = value if plain else str(value)
    return dict(sorted(flat.items()))


UNSAID = {"source.processing": "raw"}
"""Facts that earlier files lack, and what they then were."""


def differences(found: Mapping[str, Plain], known: Mapping[str, Plain]) -> str:
    """The first three facts that differ, in words; none: "". Numbers measured of a source may
    differ in their last digits, as they do between machines."""

    def same(name: str) -> bool:
        a, b = (facts.get(name, UNSAID.get(name)) for facts in (found, known))
        if isinstance(a, float) and isinstance(b, float) and name.startswith("source"):
            return math.isclose(a, b, rel_tol=1e-3)
        return a == b

    names = [name for name in {**known, **found} if not same(name)]
    names.sort(key=lambda name: name.startswith("arrays"))  # their shapes follow from the rest
    return ", ".join(f"{n} {found.get(n)}, now {known.get(n)}" for n in names[:3])
