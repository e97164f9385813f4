"""Where a model holds an attribute: decodable, and used.

Every component at a token role is asked two things: does a code read the attribute off it, on
prompts it was not made from; and does the model's answer change when the component is set to what
it is where the attribute differs. A component where it does not change is refused, since no edit
there could show anything. May import `dictionaries`, `patching`, `tasks`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from ..._types import Progress
from ...dictionaries.supervised import Labels, Supervised, decoded, shuffled, supervised
from ...patching import Component
from ...taps import head_axis
from .._result import Row
from ._bench import FLOOR, NO_RESOLUTION, Bench, CrossSection, Runs, Values

NEAR = 0.9
"""Of the best score, what is nearly as good."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What an attribute is at a component.

    - `decodable`, `null`: how often codes read it off held-out prompts, and codes of shuffled
      labels. `none`: how often the unedited model agrees with the patched one. `effect`: logits
      that mean ablation costs.
    """

    component: Component
    attribute: str
    decodable: float
    null: float
    none: float
    effect: float

    @property
    def score(self) -> float:
        """Read off and used, each from 0 to 1."""
        above = (self.decodable - self.null) / max(1 - self.null, 1e-9)
        return max(above, 0.0) * (1 - self.none)

    @property
    def refused(self) -> str:
        """Why nothing can be shown there; "" where something can."""
        if self.none > NO_RESOLUTION:
            return f"the unedited model agrees on {self.none:.2f}"
        return ""

    def row(self) -> Row:
        return {
            "section": "site",
            "component": str(self.component),
            "attribute": self.attribute,
            "decodable": self.decodable,
            "shuffled labels": self.null,
            "no intervention": self.none,
            "mean ablation costs": self.effect,
            "score": self.score,
            "refused": self.refused or ("necessity" if abs(self.effect) < FLOOR else ""),
        }


def candidates_of(model, roles: Sequence[str], stride: int = 1, heads: bool = True):
    """The residual stream behind every `stride`-th block by role, and every head at the end."""
    layers = range(model.n_layers - 1, -1, -stride)
    found = [Component("resid_post", layer, role) for role in roles for layer in layers]
    axis = head_axis("z")
    if heads and axis is not None:
        n = model.axis_size(axis)
        found += [Component("z", layer, "end", h) for layer in layers for h in range(n)]
    return found


def search(
    train: Runs,
    held: Runs,
    components: Sequence[Component],
    attributes: Sequence[str],
    *,
    progress: Progress | None = None,
) -> list[Found]:
    """Ask every component of every attribute, best score first.

    - `train`: prompts that codes are made from; `held`: others, on which all is measured.

    >>> search(Runs(model, train), Runs(model, held), candidates_of(model, ("end",)), ("IO",))
    """
    read = _Read(train, held, components, attributes)
    found, done = [], 0
    for role in dict.fromkeys(c.pos for c in components):
        some = [c for c in components if c.pos == role]
        for attribute, component, none, effect in _causes(held, some, attributes):
            decodable, null = read(component, attribute)
            found.append(Found(component, attribute, decodable, null, none, effect))
            done += 1
            if progress is not None:
                progress(done, len(components) * len(attributes))
    return sorted(found, key=lambda f: -f.score)


def _causes(held: Runs, components: Sequence[Component], attributes: Sequence[str]):
    """(attribute, component, agreement without an edit, what mean ablation costs)."""
    bench = Bench(held, CrossSection("search", tuple(components), tuple(attributes)))
    clean = bench.partly([], [])
    before = bench.difference(clean).mean()
    costs = {}
    for component, mean in zip(components, bench.means(), strict=True):
        out = bench.difference(bench.partly([component], [mean]))
        costs[component] = float(before - out.mean())
    for attribute in attributes:
        for component, x in zip(components, bench.others(attribute), strict=True):
            truth = bench.choice(bench.partly([component], [x]))
            none = float((truth == bench.choice(clean)).mean())
            yield attribute, component, none, costs[component]


class _Read:
    """Codes of every component, and how well they read held-out prompts."""

    def __init__(self, train: Runs, held: Runs, components, attributes):
        self.names = tuple(attributes)
        self.labels = train.source.labels, held.source.labels
        self.sizes = {n: size for n, size in train.source.sizes.items() if n in attributes}
        own, other = (runs.read(components) for runs in (train, held))
        labels = self._own(self.labels[0])
        mixed = shuffled(labels, np.random.default_rng(0))
        sides = (other, *(_codes_of(own, some, self.sizes) for some in (labels, mixed)))
        self.found = dict(zip(components, zip(*sides, strict=True), strict=True))

    def __call__(self, component: Component, attribute: str) -> tuple[float, float]:
        held, *both = self.found[component]
        labels = self._own(self.labels[1])
        hits = [decoded(held, c, attribute, labels) == labels[attribute] for c in both]
        return float(hits[0].mean()), float(hits[1].mean())

    def _own(self, labels: Labels) -> dict[str, np.ndarray]:
        return {name: np.asarray(labels[name]) for name in self.sizes}


def _codes_of(values: Values, labels: Labels, sizes: Mapping[str, int]) -> list[Supervised]:
    """Codes of every component by one fit: side by side they have one design."""
    ends = np.cumsum([x.shape[1] for x in values])
    whole = supervised(np.concatenate([np.asarray(x) for x in values], axis=1), labels, sizes)
    columns = [slice(end - x.shape[1], end) for x, end in zip(values, ends, strict=True)]
    parts = {name: np.asarray(rows) for name, rows in whole.codes.items()}
    own = [{name: jnp.asarray(rows[:, at]) for name, rows in parts.items()} for at in columns]
    return [Supervised(whole.mean[at], c) for at, c in zip(columns, own, strict=True)]


def sections_of(
    found: Sequence[Found], held: Runs, heads: int = 4
) -> tuple[list[CrossSection], list[str]]:
    """The cross-sections worth testing, and what was refused in words.

    For every attribute the best residual stream at each role, and the heads at the end with the
    highest scores together, if the answer changes when all of them do.
    """
    sections: dict[tuple[Component, ...], list[str]] = {}
    notes = []
    for attribute in dict.fromkeys(f.attribute for f in found):
        own = [f for f in found if f.attribute == attribute]
        for parts in _proposed(own, heads):
            none = Bench(held, CrossSection("", parts, (attribute,))).target(attribute).none
            words = " + ".join(map(str, parts))
            if none > NO_RESOLUTION:
                notes.append(f"{attribute} at {words} is refused: unedited, {none:.2f} agree")
            else:
                sections.setdefault(parts, []).append(attribute)
    named = [CrossSection(_name(parts), parts, tuple(a)) for parts, a in sections.items()]
    return named, notes


def _proposed(own: Sequence[Found], heads: int) -> list[tuple[Component, ...]]:
    """The residual stream of each role halfway through the blocks that are nearly best, where the
    attribute is neither the token itself nor already the answer; and the best heads together."""
    streams = [f for f in own if f.component.head is None]
    roles = dict.fromkeys(f.component.pos for f in streams)
    sides = [[f for f in streams if f.component.pos == role] for role in roles]
    found: list[tuple[Component, ...]] = [(_halfway(side),) for side in sides]
    single = [f.component for f in own if f.component.head is not None][:heads]
    return found + ([tuple(sorted(single))] if single else [])


def _halfway(streams: Sequence[Found]) -> Component:
    """The middle one of the layers that come near the best score."""
    near = [f.component for f in streams if f.score >= NEAR * streams[0].score]
    return sorted(near, key=lambda c: c.layer)[(len(near) - 1) // 2]


def best_of(found: Sequence[Found], attribute: str) -> Component:
    """The residual stream where an attribute is used the most, and among those where it is not
    used the best decodable."""
    own = [f for f in found if f.attribute == attribute and f.component.head is None]
    return max(own, key=lambda f: (f.score, f.decodable - f.null)).component


def _name(parts: tuple[Component, ...]) -> str:
    """Told apart from every other section, as kept sections and claims are."""
    if len(parts) == 1:
        return str(parts[0])
    heads = " ".join(f"{part.layer}.{part.head}" for part in parts)
    return f"heads {heads}@{parts[0].pos}"
