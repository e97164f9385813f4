"""The tasks that label their prompts, by name. Imports all of them."""

from collections.abc import Callable

from ._agreement import labelled_agreement
from ._ioi import labelled_ioi
from ._labelled import Labelled
from ._pronouns import labelled_pronouns

LABELLED: dict[str, Callable[..., Labelled]] = {
    "ioi": labelled_ioi,
    "agreement": labelled_agreement,
    "pronouns": labelled_pronouns,
}
"""Each takes (tokenizer, n, seed, split, bos) and returns `Labelled`."""
