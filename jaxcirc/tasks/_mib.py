"""`from_mib`: indirect object identification from MIB's templates and word lists.

Mueller et al. 2025 (arXiv 2504.13151). A folder holds ioi_templates.json, ioi_names.json,
ioi_places.json and ioi_objects.json, lists of strings each. Imports `_example`, `_ioi` and
`published`.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter

import numpy as np

from .._types import Bos, TokenizerLike
from ._example import Drop, Example, Loaded, draw, fill, pick, turns
from ._ioi import CORRUPTIONS, Corruption, Roles
from ._places import Place
from .published import read_json

LISTS = ("templates", "names", "places", "objects")
NAMES = ("name_A", "name_B", "name_C")


def from_mib(
    tokenizer: TokenizerLike,
    folder: str | os.PathLike[str],
    n: int = 64,
    seed: int = 0,
    bos: Bos = "model",
    *,
    corruption: Corruption = "s2_io",
) -> Loaded:
    """Pairs drawn from MIB's templates, names, places and objects.

    - `folder`: where the four files lie. `n`: pairs. `bos`: as for `from_texts`.
    - `corruption`: "s2_io", "random" or "abc", as for `ioi`.

    Returns `Loaded(prompts, drops)`: prompts with the spans "IO", "S1", "S2" and "end", clustered
    by template; drops are entries (from 1) left out: names of several tokens, and templates whose
    article fits no object. Raises `ValueError`, naming file and entry, for another form, or too few
    names.

    >>> prompts, drops = from_mib(tokenizer, "mib", n=64)
    """
    if corruption not in CORRUPTIONS:
        known = ", ".join(map(repr, CORRUPTIONS))
        raise ValueError(f"unknown corruption {corruption!r}: use one of {known}")
    lists = {name: _strings(Path(folder) / f"ioi_{name}.json") for name in LISTS}
    drops = [*_long_names(tokenizer, lists["names"]), *_unfit(lists["templates"], lists["objects"])]
    left_out = {(drop.reason.split()[0], drop.line) for drop in drops}
    for kind in ("name", "template"):
        lists[f"{kind}s"] = [
            entry for i, entry in enumerate(lists[f"{kind}s"], start=1) if (kind, i) not in left_out
        ]
    if len(lists["names"]) < 5 or not lists["templates"]:
        raise ValueError(
            f"{folder}: {len(lists['names'])} names of one token and {len(lists['templates'])}"
            " templates are usable: 5 names and one template are needed"
        )
    rng = np.random.default_rng(seed)
    prompts = draw(tokenizer, _examples(tokenizer, rng, lists, corruption), n, bos, "mib_ioi")
    return Loaded(prompts, tuple(drops))


def _strings(path: Path) -> list[str]:
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: not a list of strings: give a file of MIB's form")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, str):
            raise ValueError(f"{path}, entry {number}: {entry!r} must be a string")
        if path.name == "ioi_templates.json":
            _check_fields(entry, f"{path}, entry {number}")
    return entries


def _check_fields(template: str, where: str) -> None:
    fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    for field in fields:
        if field not in (*NAMES, "place", "object"):
            raise ValueError(
                f"{where}: unknown field {{{field}}}: use {', '.join(NAMES)}, place, object"
            )
    for name in NAMES:
        if fields.count(name) != 1:
            raise ValueError(f"{where}: {{{name}}} must occur once: {template!r}")


def _long_names(tokenizer: TokenizerLike, names: list[str]) -> Iterator[Drop]:
    for number, name in enumerate(names, start=1):
        length = len(tokenizer.encode(" " + name))
        if length != 1:
            yield Drop(number, f'name " {name}" is {length} tokens: use one of a single token')


def _unfit(templates: list[str], objects: list[str]) -> Iterator[Drop]:
    for number, template in enumerate(templates, start=1):
        if not _fitting(template, objects):
            yield Drop(number, f"template {template!r} fits no object: its article is another")


def _fitting(template: str, objects: list[str]) -> list[str]:
    """The objects that go with the article of a template."""
    articles = {article for article in ("a", "an") if f" {article} {{object}}" in template}
    if not articles:
        return objects
    return [
        thing for thing in objects if ("an" if thing[:1].lower() in "aeiou" else "a") in articles
    ]


def _examples(
    tokenizer: TokenizerLike,
    rng: np.random.Generator,
    lists: Mapping[str, list[str]],
    corruption: Corruption,
) -> Iterator[Example]:
    for turn, (template, text) in enumerate(turns(rng, lists["templates"])):
        io, subject, *others = pick(rng, lists["names"], 5)
        io_first = (turn + turn // len(lists["templates"])) % 2 == 0
        roles = Roles(io, subject, subject) if io_first else Roles(subject, io, subject)
        (place,), (thing,) = (
            pick(rng, lists["places"], 1),
            pick(rng, _fitting(text, lists["objects"]), 1),
        )
        words = {"place": place, "object": thing}
        clean, found = fill(tokenizer, text, words | _named(roles), NAMES)
        corrupt, _ = fill(tokenizer, text, words | _named(CORRUPTIONS[corruption](roles, others)))
        labels = ("IO", "S1", "S2") if io_first else ("S1", "IO", "S2")
        spans: dict[str, Place] = dict(zip(labels, (found[name] for name in NAMES), strict=True))
        yield Example(clean, corrupt, " " + io, " " + subject, spans, template)


def _named(roles: Roles) -> dict[str, str]:
    return dict(zip(NAMES, (roles.first, roles.second, roles.subject), strict=True))
