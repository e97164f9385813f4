"""The tasks by name. Imports every task."""

from collections.abc import Callable

from ._ioi import ioi
from .prompt import Prompts

TASKS: dict[str, Callable[..., Prompts]] = {"ioi": ioi}
"""Each is `task(tokenizer, n=64, seed=0, bos="model") -> Prompts`."""
