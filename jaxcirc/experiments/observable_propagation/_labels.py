"""Few labels: a feature of none beside ridge, logistic and mean-difference directions.

All are read at the same layer and tokens, fitted on some clusters and judged on others, over
resamplings of the labelled examples. May import `observables`.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from ...observables import auc, learn
from ...tasks import Interval, interval, interval_of
from .._claim import Claim
from .._result import Row
from ..feature_circuits import Section
from ..observe import ranked
from ._look import WHERE, Look, effects_of, explained, readings
from ._rows import Rows
from ._subject import Ready

LEARNED = ("ridge", "ridge on labels", "logistic", "mean difference")
OURS = "observable propagation"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A head, how it was chosen, its mean direct effect, and the sign that its reading is given:
    that of one pair's direct effect, or 1 where no data were used."""

    layer: int
    head: int
    how: str
    effect: float
    sign: float = 1.0

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


def choices(
    look: Look,
    rows: Rows,
    observable: int,
    features: np.ndarray,
    seed: int,
    places: Sequence[str] = tuple(WHERE),
) -> list[Choice]:
    """The head of the longest feature; by one pair's direct effect; the best of all in hindsight,
    read at the better of `places`; a random one. A head that several rules choose comes once."""
    mean = effects_of(look, rows, observable).mean(axis=0)
    one = effects_of(_only(look, rows), _first(rows), observable)[0]
    y = look.outputs[observable]
    r2 = np.max([explained(readings(look, features, where), y) for where in places], axis=0)
    rng = np.random.default_rng(seed)
    random = tuple(int(rng.integers(n)) for n in mean.shape)
    heads = {
        "length, no data": ranked(np.linalg.norm(features, axis=-1))[0],
        "direct effect of one pair": ranked(np.abs(one))[0],
        "r2, all labels": ranked(r2)[0],
        "chance": random,
    }
    found: dict[tuple[int, int], list[str]] = {}
    for how, (layer, head) in heads.items():
        found.setdefault((int(layer), int(head)), []).append(how)
    free = ranked(np.linalg.norm(features, axis=-1))[0]
    signs = {at: 1.0 if at == free else float(np.sign(one[at])) for at in found}
    return [Choice(*at, "; ".join(how), float(mean[at]), signs[at]) for at, how in found.items()]


def _pair(rows: Rows) -> np.ndarray:
    """The first cluster's rows in the first template."""
    chosen = (rows.clusters == rows.clusters[0]) & (rows.templates == rows.templates[0])
    return np.flatnonzero(chosen)


def _first(rows: Rows) -> Rows:
    return rows.take(_pair(rows))


def _only(look: Look, rows: Rows) -> Look:
    own = _pair(rows)
    parts = look.place[:, own], look.mean[:, own], look.outputs[:, own], look.direct[..., own]
    return Look(*parts)


@dataclasses.dataclass(frozen=True)
class Curves:
    """Scores by (head, where, kind, labels): r2 and AUC of every resampling."""

    rows: list[Row]
    sizes: tuple[int, ...]
    scores: dict[tuple[str, str, str, int], tuple[np.ndarray, np.ndarray]]
    held_out: dict[tuple[str, str], tuple[Interval, Interval]]
    first: str

    def auc(self, where: str, kind: str, n: int, head: str = "") -> Interval:
        """The AUC at a head, by default the first."""
        head = head or self.first
        if kind == OURS:
            return self.held_out[head, where][1]
        return interval(self.scores[head, where, kind, n][1])

    def r2(self, where: str, kind: str, n: int) -> Interval:
        """The r2 at the first head."""
        if kind == OURS:
            return self.held_out[self.first, where][0]
        return interval(self.scores[self.first, where, kind, n][0])


def low_data(
    ready: Ready,
    name: str,
    seen: Look,
    rows: Rows,
    observable: int,
    features: np.ndarray,
    heads: Sequence[Choice],
    places: Sequence[str],
) -> Curves:
    """Directions from growing numbers of labels at each chosen head's own input."""
    train, test = _split(rows)
    sizes = tuple(n for n in ready.sizes.labels if n <= len(train))
    y = seen.outputs[observable]
    table: list[Row] = []
    scores, held_out = {}, {}
    total = len(heads) * len(places)
    tell = ready.tell(f"labels, {name}")
    for step, (choice, where) in enumerate((c, w) for c in heads for w in places):
        x = seen.read(where)[choice.layer].astype(np.float64)
        reading = choice.sign * (x @ features[choice.layer, choice.head])
        own = _own_scores(reading, y, rows, test)
        held_out[str(choice), where] = own
        base = {"section": "low data", "set": name, "head": str(choice), "chosen by": choice.how}
        base["read at"] = WHERE[where]
        table.append({**base, "kind": OURS, "labels": 0, **_words(*own)})
        scores |= _learned(x, y, rows, train, test, sizes, ready, (str(choice), where))
        for (head, place, kind, n), (r2, areas) in scores.items():
            if (head, place) == (str(choice), where):
                ends = _quantiles(r2), _quantiles(areas)
                table.append({**base, "kind": kind, "labels": n, **_words(*ends)})
        tell(step + 1, total)
    return Curves(table, sizes, scores, held_out, str(heads[0]))


def _split(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Half of the clusters to learn from, half to judge on."""
    first = rows.clusters < np.median(np.unique(rows.clusters))
    return np.flatnonzero(first), np.flatnonzero(~first)


def _own_scores(reading: np.ndarray, y, rows: Rows, test) -> tuple[Interval, Interval]:
    """r2 and AUC of the feature on held-out rows, clusters resampled."""
    a, b, labels = reading[test], y[test], rows.labels[test]
    a, b = a - a.mean(), b - b.mean()

    def r2(ma, mb, aa, bb, ab) -> float:
        return (ab - ma * mb) ** 2 / ((aa - ma**2) * (bb - mb**2))

    clusters = rows.clusters[test]
    found = interval_of(r2, [a, b, a * a, b * b, a * b], [clusters] * 5)
    return found, _auc_interval(reading[test], labels, clusters)


def _auc_interval(reading: np.ndarray, labels: np.ndarray, clusters: np.ndarray) -> Interval:
    """AUC, clusters resampled with their rows of both kinds: the share of negative rows below a
    positive one, cluster by cluster of the negative rows."""
    high, low = reading[labels][:, None], reading[~labels][None]
    below = (high > low) + 0.5 * (high == low)
    own = clusters[~labels][:, None] == np.unique(clusters[~labels])
    shares = below @ (own / own.sum(axis=0))
    return interval_of(
        lambda share, size: float(share @ size),
        [shares, own],
        [clusters[labels], clusters[~labels]],
    )


def _learned(x, y, rows: Rows, train, test, sizes, ready: Ready, key) -> dict:
    """Every kind at every number of labels, resampled; and random directions."""
    found = {}
    rng = np.random.default_rng(ready.seed)
    labels = rows.labels
    for n in sizes:
        draws = [_balanced(train, labels, n, rng) for _ in range(ready.sizes.draws)]
        for kind in LEARNED:
            vectors = [_fit(kind, x[rows_], y[rows_], labels[rows_]) for rows_ in draws]
            found[*key, kind, n] = _judged(vectors, x, y, labels, test)
    vectors = [learn("random", x, y, labels, seed=i) for i in range(ready.sizes.draws)]
    found[*key, "random", 0] = _judged(vectors, x, y, labels, test)
    return found


def _fit(kind: str, x, y, labels) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two examples scikit-learn says that they are few
        return learn(kind, x, y, labels)


def _balanced(train: np.ndarray, labels: np.ndarray, n: int, rng) -> np.ndarray:
    """n rows, half of either kind."""
    sides = [train[labels[train] == side] for side in (True, False)]
    return np.concatenate([rng.choice(side, n // 2, replace=False) for side in sides])


def _judged(vectors, x, y, labels, test) -> tuple[np.ndarray, np.ndarray]:
    values = np.stack(vectors) @ x[test].T
    areas = np.asarray([auc(value, labels[test]) for value in values])
    return explained(values, y[test]), areas


def _quantiles(values: np.ndarray) -> Interval:
    """The mean over resamplings, and where 95 % of them lie."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), len(values), len(values))


def _words(r2: Interval, area: Interval) -> dict[str, float]:
    named = {"r2": r2, "AUC": area}
    return {
        f"{name}{end}": getattr(found, part)
        for name, found in named.items()
        for end, part in (("", "value"), (" low", "low"), (" high", "high"))
    }


def labels(ready: Ready) -> Section:
    """The pronoun at four heads, at the name and on average."""
    seen, rows = ready.look("subject"), ready.rows["subject"]
    index, vectors = ready.order.index("subject"), ready.features["subject"]
    heads = choices(seen, rows, index, vectors, ready.seed)
    places = ("place", "mean")
    curves = low_data(ready, "names", seen, rows, index, vectors, heads, places)
    return Section(curves.rows, {}, _claims(curves, places))


def less(one: Interval, other: Interval, spare: float = 0.0) -> Interval:
    """The difference of two numbers, plus what is no difference; their errors add up."""
    low, high = one.low - other.high, one.high - other.low
    value = one.value - other.value
    return Interval(value + spare, low + spare, high + spare, one.n, one.clusters)


PAPER = {2: "", 6: "", 20: "", 60: "0.945 and 0.945", 100: ""}


def _claims(curves: Curves, places: Sequence[str]) -> list[Claim]:
    """Against each learned direction at each number of labels, at the better place for ours."""
    best = max(places, key=lambda where: curves.r2(where, OURS, 0).value)
    own = curves.r2(best, OURS, 0)
    claims = []
    for n in curves.sizes:
        for kind in ("ridge", "mean difference"):
            told = curves.r2(best, kind, n)
            claims.append(
                Claim(
                    f"names: the feature of no label beats {kind} on {n}",
                    f"r2 less that of {kind}, held out, {WHERE[best]}",
                    less(own, told),
                    paper=PAPER.get(n, "") if kind == "ridge" else "",
                )
            )
    return claims
