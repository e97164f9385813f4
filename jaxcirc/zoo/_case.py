"""`Case`: a model of the zoo with its prompts and the truth about its edges.

May import `models`, `taps` and `tasks`.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from ..models import LM
from ..taps import Node, Wiring
from ..tasks import Contrast, Metric, Prompts, logit_difference
from ._causal import CAUSAL, INPUT, Causal
from ._compiled import PROGRAMS, pairs, prompts_of
from ._contrast import Negatives, contrast_of
from ._file import read
from ._structure import owner, structural


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model whose circuit is known, with a task and the truth about every edge.

    - `model`: the `LM`. `wiring`: of the model; every Bool[edge] below is in its order.
    - `metric`: what the edges are to be found by.
    - `true`: edges of the circuit. `scored`: edges that count, right or wrong: use
      `true[scored]` against a method's scores[scored].
    - `constant`: true edges that carry the same between prompts, or whose exchange changes no
      logit: leave them out too where prompts are exchanged (resample ablation).
    - `notes`: what is known of the case, in words. `symbols`: a compiled program's inputs and
      outputs, in the order of their ids.

    >>> case = zoo.load("xproportion")
    >>> prompts = case.prompts(64, seed=0)
    """

    name: str
    model: LM
    wiring: Wiring
    true: Bool[np.ndarray, "edge"]
    scored: Bool[np.ndarray, "edge"]
    constant: Bool[np.ndarray, "edge"]
    notes: str
    symbols: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
    metric: Metric = logit_difference

    def prompts(self, n: int = 64, seed: int = 0, length: int | None = None) -> Prompts:
        """n pairs of the task, scored at the last position, with one answer and one wrong each.

        The corrupt prompt is another input with another answer, which is the wrong token. Of a
        numerical program logit 0 is the number and logit 1 is always 0: the answer is 0 where the
        clean prompt's number is the larger one, else 1.

        `length`: how many symbols a compiled program gets (default: as many as it takes).

        Raises `ValueError` for n < 1, more pairs than there are, or a length that does not fit.

        >>> zoo.load("reverse").prompts(8).clean                    # Int[8 pos]
        """
        if self.name in PROGRAMS:
            return pairs(PROGRAMS[self.name], *self.symbols, n, seed, self.name, length)
        if length is not None:
            raise ValueError(f"{self.name} is no compiled program: leave out length={length}")
        return _drawn(CAUSAL[self.name], n, seed, self.name)

    def contrast(self, n: int = 64, seed: int = 0, negatives: Negatives = "absent") -> Contrast:
        """n texts with the behaviour and n without, or as many as there are.

        - `negatives`: "absent" (without the behaviour), "corrupt" (inputs of the same task),
          "random" (tokens) or "copy" (more positives).

        >>> zoo.load("induction").contrast(250).positive.sum()
        """
        return contrast_of(self.name, self.symbols, n, seed, negatives)

    @property
    def components(self) -> tuple[Bool[np.ndarray, "component"], Bool[np.ndarray, "component"]]:
        """Which heads and MLPs are in the circuit, in the order of `wiring.sources` without the
        input: at an end of a true edge that exchange can show; and which are known at all.

        >>> true, known = zoo.load("induction").components
        """
        ends = owner(self.wiring)[self.wiring.reader], self.wiring.source
        first, n = self.wiring.first, self.wiring.n_sources

        def touched(edges) -> np.ndarray:
            flags = np.zeros(n + 1, bool)
            for end in ends:
                flags[end[edges]] = True
            return flags[first:n]

        true = touched(self.true & self.scored & ~self.constant)
        constant = touched(self.true & (self.constant | ~self.scored))
        return true, true | ~constant


def names() -> tuple[str, ...]:
    """The models of the zoo: compiled programs, then trained transformers.

    >>> zoo.names()[0]
    """
    return (*PROGRAMS, *CAUSAL)


def load(name: str, root: Path | None = None) -> Case:
    """A case of the zoo.

    Compiled programs (Lindner et al. 2023, arXiv 2301.05062): an edge is true where a direction is
    written and read on a way to the output. Tokens and positions are two sources.

    Trained transformers (Gupta et al. 2024, arXiv 2407.14494): an edge is true where the causal
    model passes on what differs between prompts, and false where it touches a component outside the
    circuit, whose exchange does not change the answer. All other edges between the input, the
    components of the circuit and the logits are unknown, and not scored.

    - `name`: one of `names()`. `root`: the folder of the files (default: the ones shipped).

    Returns a `Case`. Raises `ValueError` for an unknown name, or a file that is not the one on its
    card.

    >>> zoo.load("induction").true.sum()
    """
    if name not in names():
        raise ValueError(f"the zoo has no {name!r}: zoo.names() are {', '.join(names())}")
    model, notes = read(name, root)
    return _program(name, model, notes) if name in PROGRAMS else _trained(name, model)


def _program(name: str, model: LM, notes: dict[str, Any]) -> Case:
    wiring = Wiring.of(model, split=True)
    constant, inert = (_edges(wiring, map(_named, notes[kind])) for kind in ("constant", "inert"))
    words = (
        f"{PROGRAMS[name].about}; compiled. True by structure; not scored are {inert.sum()} true"
        " edges that neither exchange nor zeroing shows at the last position."
    )
    symbols = tuple(notes["tokens"]), tuple(notes["outputs"])
    true = structural(model, wiring)
    return Case(name, model, wiring, true, ~inert, constant, words, symbols)


def _trained(name: str, model: LM) -> Case:
    wiring, causal = Wiring.of(model), CAUSAL[name]
    true = _edges(wiring, causal.edges)
    known = {INPUT, *causal.nodes.values()}
    inside = np.asarray([source in known for source in wiring.sources] + [True])
    unknown = inside[wiring.source] & inside[owner(wiring)[wiring.reader]] & ~true
    parts = ", ".join(f"{role} at {node}" for role, node in causal.nodes.items())
    words = (
        f"{causal.about}; trained: {parts}. Not scored are {unknown.sum()} edges within the circuit"
        " that the causal model does not have."
    )
    return Case(name, model, wiring, true, ~unknown, np.zeros(wiring.n_edges, bool), words)


def _edges(wiring: Wiring, found: Iterable[tuple[Node, Node]]) -> Bool[np.ndarray, "edge"]:
    flags = np.zeros(wiring.n_edges, bool)
    flags[[wiring.find(*edge) for edge in found]] = True
    return flags


def _named(edge: list[list]) -> tuple[Node, Node]:
    return Node(*edge[0]), Node(*edge[1])


def _drawn(causal: Causal, n: int, seed: int, name: str) -> Prompts:
    """n different pairs with different answers."""
    if n < 1:
        raise ValueError(f"n={n}: {name} needs at least one pair, n=64")
    rows = causal.draw(jax.random.key(seed), 8 * n)
    answers = np.asarray(causal.solve(rows, lambda _, value: value))
    clean, corrupt = np.asarray(rows).reshape(2, 4 * n, -1)
    right, wrong = answers.reshape(2, -1)
    both = np.concatenate([clean, corrupt], axis=1)
    first = np.unique(both, axis=0, return_index=True)[1]
    usable = np.sort(first[right[first] != wrong[first]])[:n]
    if len(usable) < n:
        raise ValueError(f"{name} drew {len(usable)} pairs, not {n}: n={len(usable)}")
    return prompts_of(clean[usable], corrupt[usable], right[usable], wrong[usable], name)
