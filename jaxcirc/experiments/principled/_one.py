"""`jaxcirc dictionary eval`: the three tests of one dictionary on one task.

Supervised codes, neurons, principal directions and a learned subspace stand beside it. On
SmolLM2-135M about three minutes on two cores. May import all but `viz` and the command line.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..._types import Tell
from ...patching import Component
from ...taps import AbstractDictionary
from ...tasks.labelled import LABELLED, read_ravel
from .._clock import clock
from .._result import Result, facts_of, finite
from ._bench import CrossSection
from ._claims import shipped_claims
from ._data import Data, clean_row
from ._judge import Asked, Judged
from ._ravel import disentangle
from ._references import undirected
from ._study import READING
from ._subjects import Subject


def judge_dictionary(
    model,
    tokenizer,
    dictionary: AbstractDictionary,
    place: str,
    task: str = "ioi",
    *,
    pos: str = "end",
    head: int | None = None,
    ks: Sequence[int] = (2, 8, 32),
    train: int = 960,
    report: int = 128,
    seed: int = 0,
    name: str = "dictionary",
    ravel: Path | None = None,
    tell: Tell | None = None,
) -> Result:
    """Approximation, sparse control and meaning of a dictionary's features on a task.

    - `place`: as in training, "resid_post.12". `task`: one that labels its prompts ("ioi",
      "agreement", "pronouns"). `pos`: the token role, a span of the task; `head`: at sites of
      heads.
    - `ks`: moves of edits. `train`, `report`: prompts that codes and labels are made from, and
      that are reported on.

    - `ravel`: the folder of RAVEL's files, for the disentangle score at the last token of a city.

    Returns `Result`. Raises `ValueError` for an unknown task, a place of several sites, or a
    dictionary of another width.

    >>> judge_dictionary(model, tokenizer, dictionary, "resid_post.12", "agreement").table
    """
    if task not in LABELLED:
        raise ValueError(f"task={task!r}: use one of {', '.join(map(repr, LABELLED))}")
    component = _component(model, place, pos, head)
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={tuple(ks)}: at least one number of moves, ks=(2, 8, 32)")
    with clock() as seconds:
        make, few = LABELLED[task], max(8, report // 2)
        data = Data.of(
            model,
            make(tokenizer, train, seed, "train"),
            make(tokenizer, few, seed + 1, "test"),
            make(tokenizer, report, seed + 2, "test"),
            make(tokenizer, few, seed + 3, "templates"),
        )
        section = CrossSection(str(component), (component,), data.attributes)
        found = Judged(section, data, Asked(tuple(ks), 32, 20, behaviour=(name,)))
        _check_width(found, dictionary)
        found.supervise()
        if found.attributes:
            found.refer()
        done = None if tell is None else lambda i, n: tell("tests", i, n)
        own = Subject(name, "", 0, (dictionary,))
        found.judge([own, undirected(own, found.train.values)], done)
        if ravel is not None:
            there = dataclasses.replace(component, pos="entity")
            asked = read_ravel(tokenizer, ravel, seed=seed)
            found.rows += disentangle(model, asked, there, dictionary, name, seed)
    notes = [] if found.attributes else [_elsewhere(component, data)]
    claims = shipped_claims(found, name, max(ks))
    facts = facts_of(
        model, data.report.source.prompts, seed=seed, place=place, pos=pos, ks=list(ks)
    )
    return Result(
        kind="principled",
        task=f"{task}-{place}",
        numbers={claim.text: claim.found for claim in claims},
        table=finite([*(c.row() for c in claims), clean_row(data), *found.finish()]),
        arrays={},
        axes={},
        facts=facts | {"dictionary": name, "features": dictionary.d_dict, "train": train},
        seconds=seconds,
        notes=[*notes, *READING],
    )


def _component(model, place: str, pos: str, head: int | None) -> Component:
    site, _, layer = place.rpartition(".")
    if not site or not layer.isdigit() or ">" in place or "+" in place:
        raise ValueError(f'place "{place}": one site at one layer, as in "resid_post.12"')
    found = Component(site, int(layer), pos, head)
    if found.layer >= model.n_layers:
        raise ValueError(f"{found}: this model has the layers 0..{model.n_layers - 1}")
    return found


def _elsewhere(component: Component, data: Data) -> str:
    """What to try where nothing that is exchanged changes an answer."""
    spans = ", ".join(name for name in data.report.source.prompts.spans if name != component.pos)
    return (
        f"no attribute is used at {component}, so nothing was edited: another layer, or another"
        f' token role by pos="..." (--pos): {spans}'
    )


def _check_width(found: Judged, dictionary: AbstractDictionary) -> None:
    width = found.report.values[0].shape[1]
    if dictionary.d_in != width:
        raise ValueError(
            f"the dictionary reads {dictionary.d_in} numbers, {found.section.name} has {width}:"
            " give its own place, --place resid_post.12, and --head for a head's"
        )
