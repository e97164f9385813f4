"""Which features are ablated, decided in the open: by a word list, or by a file of decisions.

A file is what the page of features exports: {"version": 1, "task": .., "model": ..,
"decisions": {"resid_post.12/317": "ablate", ..}}. Imports `circuits` for the names of nodes.
"""

import abc
import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ...circuits.features import FeatureNode
from ...circuits.formats._file import write_json
from ._contexts import Context

VERSION = 1
WORDS = {True: "ablate", False: "keep"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a feature goes, and why."""

    ablate: bool
    why: str


class Judge(abc.ABC):
    """What says of every feature whether it is about the attribute."""

    @abc.abstractmethod
    def __call__(self, node: FeatureNode, contexts: Sequence[Context]) -> Verdict:
        """The verdict on a feature, from the texts where it is most active."""

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """What tells it from other judges."""


@dataclasses.dataclass(frozen=True)
class WordList(Judge):
    """Ablate what peaks on words of a list in at least a share of its top contexts.

    >>> WordList(task.words)(node, activity.top(node))
    """

    words: Collection[str]
    share: float = 0.5

    def __call__(self, node: FeatureNode, contexts: Sequence[Context]) -> Verdict:
        if not contexts:
            return Verdict(False, "never active on the texts shown")
        hits = [context.word for context in contexts if context.word in self.words]
        told = f"{len(hits)} of {len(contexts)} peaks on listed words"
        some = ", ".join(dict.fromkeys(hits))
        return Verdict(len(hits) >= self.share * len(contexts), f"{told}: {some}" if some else told)

    @property
    def key(self) -> str:
        said = json.dumps([self.share, sorted(self.words)])
        return f"word list {hashlib.sha256(said.encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True)
class Decisions(Judge):
    """What somebody decided, feature by feature.

    - `model`, `task`: what it was decided about.

    >>> read_decisions("decisions-gender.json")
    """

    task: str
    model: str
    ablate: Mapping[str, bool]
    source: str = "decisions.json"

    def __call__(self, node: FeatureNode, contexts: Sequence[Context]) -> Verdict:
        if str(node) not in self.ablate:
            raise ValueError(
                f"{self.source} says nothing of {node}: open the judge page of the task"
                f" {self.task!r} and save its decisions again"
            )
        return Verdict(self.ablate[str(node)], f"decided in {self.source}")

    @property
    def key(self) -> str:
        said = json.dumps([self.task, sorted(self.ablate.items())])
        return f"decisions {hashlib.sha256(said.encode()).hexdigest()[:8]}"


def write_decisions(decisions: Decisions, path: str | os.PathLike) -> Path:
    """Write decisions as the page does.

    >>> write_decisions(Decisions("gender", "smollm2-135m", {"resid_post.12/3": True}), "d.json")
    """
    said = {name: WORDS[flag] for name, flag in decisions.ablate.items()}
    document = {"version": VERSION, "task": decisions.task, "model": decisions.model}
    return write_json(path, document | {"decisions": said})


def read_decisions(path: str | os.PathLike) -> Decisions:
    """Read what the page or `write_decisions` wrote.

    Raises `FileNotFoundError` where there is no file, `ValueError` for anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}: save decisions on a judge page, and give its path"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r}")
        said = {str(FeatureNode.parse(k)): _flag(v) for k, v in document["decisions"].items()}
        return Decisions(str(document["task"]), str(document["model"]), said, path.name)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f'{path.name} holds no decisions ({why}): {{"version": 1, "task": "gender", "model":'
            ' "smollm2-135m", "decisions": {"resid_post.12/317": "ablate"}}'
        ) from None


def _flag(word: str) -> bool:
    if word not in WORDS.values():
        raise ValueError(f'{word!r}, where "ablate" or "keep" belongs')
    return word == WORDS[True]


def judge_of(
    decisions: Sequence[Decisions], task: str, model: str, words: Collection[str]
) -> Judge:
    """The decisions on a task, if there are any; else its word list.

    Raises `ValueError` for decisions on another model.
    """
    for each in decisions:
        if each.task == task:
            if each.model != model:
                raise ValueError(f"{each.source} is about {each.model}, this is {model}: --model")
            return each
    return WordList(frozenset(words))
