"""The tasks by name. Imports every task."""

from collections.abc import Callable
from functools import partial

from ._agreement import agreement
from ._arithmetic import arithmetic
from ._colours import colours
from ._docstring import docstring
from ._facts import facts
from ._greater_than import greater_than
from ._induction import induction
from ._ioi import ioi
from ._pronouns import pronouns
from .prompt import Prompts

TASKS: dict[str, Callable[..., Prompts]] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "docstring": docstring,
    "agreement_simple": agreement,
    "agreement_phrase": partial(agreement, structure="phrase"),
    "agreement_within": partial(agreement, structure="within"),
    "agreement_across": partial(agreement, structure="across"),
    "facts": facts,
    "pronouns": pronouns,
    "arithmetic": arithmetic,
    "induction": induction,
    "colours": colours,
}
"""Each is `task(tokenizer, n=64, seed=0, bos="model") -> Prompts`."""

ONE_WAY = ("greater_than",)
"""Tasks whose corruption makes no wrong answer right: they cannot be used both ways."""
