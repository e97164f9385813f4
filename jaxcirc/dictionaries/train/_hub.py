"""Texts of a data set of the Hugging Face Hub, streamed: rows come as they are read, none is kept.

`hub:OWNER/NAME[:CONFIG[:SPLIT[:FIELD]]]` names one; the split is "train" and the field "text"
unless it says otherwise, and a part may be empty (`hub:OWNER/NAME::test`). Needs the package
`datasets`. May import nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

PREFIX = "hub:"


class HubText(NamedTuple):
    """A data set, and where in it the texts are; no configuration is its only, or default, one."""

    name: str
    config: str | None = None
    split: str = "train"
    field: str = "text"

    def __str__(self) -> str:
        return PREFIX + ":".join((self.name, self.config or "", self.split, self.field))


def parse_hub(words: str) -> HubText:
    """What `hub:OWNER/NAME[:CONFIG[:SPLIT[:FIELD]]]` names. Raises `ValueError` for less or more.

    >>> parse_hub("hub:roneneldan/TinyStories")
    HubText(name='roneneldan/TinyStories', config=None, split='train', field='text')
    """
    name, *rest = words.removeprefix(PREFIX).split(":")
    if not name or len(rest) > 3:
        raise ValueError(f'"{words}": write hub:OWNER/NAME[:CONFIG[:SPLIT[:FIELD]]]')
    config, split, field = (*rest, *[""] * (3 - len(rest)))
    return HubText(name, config or None, split or "train", field or "text")


def hub_texts(source: HubText) -> Iterator[str]:
    """The texts, in the data set's order, as long as it has any.

    Raises `ValueError` without the package, for a data set that cannot be read (no such one, no
    network), and for a field that is not there or holds no text.

    >>> next(hub_texts(parse_hub("hub:roneneldan/TinyStories")))
    """
    for row in _rows(source):
        text = row.get(source.field)
        if isinstance(text, str):
            yield text
        elif source.field not in row or text is not None:
            raise ValueError(_no_field(source, row))


def _rows(source: HubText) -> Iterator[Mapping[str, Any]]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ValueError(f'{source.name} needs datasets: pip install "jaxcirc[data]"') from None
    try:
        options = {"split": source.split, "streaming": True}
        yield from datasets.load_dataset(source.name, source.config, **options)
    except Exception as why:  # the network's and the Hub's clients each have their own
        said = (str(why).strip() or type(why).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"cannot read {source} ({said}): check the name and the network, or give files,"
            " --text DIR"
        ) from why


def _no_field(source: HubText, row: Mapping[str, Any]) -> str:
    texts = [name for name, value in row.items() if isinstance(value, str)]
    instead = source._replace(field=texts[0] if texts else "FIELD")
    there = ", ".join(row)
    return (
        f'{source.name} has no text in "{source.field}": its fields are {there}; --text {instead}'
    )
