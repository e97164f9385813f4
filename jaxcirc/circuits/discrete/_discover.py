"""From texts to ranked heads: O'Neill & Bui 2024 (arXiv 2405.12522), the whole method.

What heads write on texts of two classes, one small dictionary for all of it, a code for every head
and text, and a count of the codes that only positive texts have. May import `taps`, `tasks`.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ...taps import Node
from ...tasks import Contrast
from ._activations import Pool, component_outputs
from ._codes import distinct, pair_counts, unique_counts
from ._rank import rank_by_pairs
from ._sae import Settings, codes_of, fit, picked


@dataclasses.dataclass(frozen=True, eq=False)
class DiscreteScores:
    """What codes say of components, in every trial.

    - `nodes`: Float[trial component], codes unique to positives. `places`: the same by position.
    - `pairs`: Float[trial component component], pairs of codes unique to positives, or None.
    - `codes`: Int[trial example pos component]. `carries`: Bool of that shape, whether a positive
      text's code occurs on no negative one. `positive`: Bool[example].
    - `losses`: Float[trial step]. `settings`: of the dictionaries.
    """

    nodes: Float[np.ndarray, "trial component"]
    places: Float[np.ndarray, "trial pos component"]
    pairs: Float[np.ndarray, "trial component component"] | None
    codes: Int[np.ndarray, "trial example pos component"]
    carries: Bool[np.ndarray, "trial example pos component"]
    positive: Bool[np.ndarray, "example"]
    losses: Float[np.ndarray, "trial step"]
    settings: Settings

    @property
    def importance(self) -> Float[np.ndarray, "component"]:
        """The mean node score over trials; not negative, and without a sign."""
        return self.nodes.mean(axis=0)

    @property
    def by_pairs(self) -> Float[np.ndarray, "trial component"]:
        """The published ranking of heads by their pairs. Raises `ValueError` without pairs."""
        if self.pairs is None:
            raise ValueError("no pairs were counted: discrete(model, texts, pairs=True)")
        return np.stack([rank_by_pairs(pairs) for pairs in self.pairs])

    def ranked(self, n_heads: int) -> list[Node]:
        """Heads of a model with so many in a layer, the best first; of equals the earlier.

        >>> discrete(model, texts).ranked(model.config.n_heads)[:10]
        """
        order = np.argsort(-self.importance, kind="stable")
        return [Node("z", int(i) // n_heads, int(i) % n_heads) for i in order]


def discrete(
    model,
    texts: Contrast,
    *,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    seeds: int = 10,
    seed: int = 0,
    pool: Pool = "mean",
    mlps: bool = False,
    pairs: bool = True,
    normalise: bool = False,
    batch: int = 32,
) -> DiscreteScores:
    """Score every head of a model by the codes that only positive texts have.

    - `texts`: of two classes (`tasks.contrast`, `tasks.contrast_texts`). Their order does not
      matter.
    - `seeds`: dictionaries, trained in one compiled call; `seed`: the first draw of all.
    - `pool`: which position stands for a text; with "each", scores add up over positions counted
      from the end. `mlps`: MLPs as components too.
    - `pairs`: count pairs as well. `normalise`: as in `unique_counts` and `pair_counts`.
    - `batch`: texts in a run of the model.

    Returns `DiscreteScores`, its examples in the order of `texts.ordered()`.

    >>> scores = discrete(model, contrast("ioi", tokenizer, n=250))
    >>> scores.ranked(model.config.n_heads)[:5]
    """
    texts = texts.ordered()
    outputs = component_outputs(model, texts, pool=pool, mlps=mlps, batch=batch)
    seen = np.asarray(texts.mask) if pool == "each" else np.ones(outputs.shape[:2], bool)
    n = int(texts.positive.sum())
    return score_outputs(
        outputs[:n],
        outputs[n:],
        seen=(seen[:n], seen[n:]),
        settings=settings,
        seeds=seeds,
        seed=seed,
        pairs=pairs,
        normalise=normalise,
    )


def score_outputs(
    positive: Float[np.ndarray, "..."],
    negative: Float[np.ndarray, "..."],
    *,
    seen: tuple[np.ndarray, np.ndarray] | None = None,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    seeds: int = 10,
    seed: int = 0,
    penalties: Sequence[float] | None = None,
    pairs: bool = True,
    normalise: bool = False,
) -> DiscreteScores:
    """The same from what components write, however that was come by.

    - `positive`, `negative`: Float[example component d_model], or [example pos component d_model].
    - `seen`: Bool[example pos] of either, False at padding. `penalties`: lambda by trial (default:
      `settings.penalty` for all).

    The order of examples does not matter. Returns `DiscreteScores`, positive examples first. Raises
    `ValueError` for fewer than two examples of a class, unequal components, equal classes, more
    training examples than there are, no seed, or penalties for another number of trials.

    >>> score_outputs(x[:250], x[250:], seeds=10).importance
    """
    both = [x[:, None] if x.ndim == 3 else x for x in map(np.asarray, (positive, negative))]
    digests = [_digests(x) for x in both]
    _check(both[0], both[1], same=set(digests[0]) == set(digests[1]))
    masks = [np.ones(x.shape[:2], bool) for x in both] if seen is None else seen
    orders = [_order(own) for own in digests]
    x = np.concatenate([x[order] for x, order in zip(both, orders, strict=True)])
    mask = np.concatenate([m[order] for m, order in zip(masks, orders, strict=True)])
    n, (n_all, n_pos, width, _) = len(both[0]), x.shape
    lambdas = np.full(seeds, settings.penalty) if penalties is None else np.asarray(penalties)
    if len(lambdas) != seeds:
        raise ValueError(f"{len(lambdas)} penalties for seeds={seeds}: give one a trial")
    picks, keys = picked(seeds, settings.examples, n_all, seed)
    with jax.default_matmul_precision("highest"):
        rows = jnp.asarray(x.reshape(n_all, n_pos * width, -1), jnp.float32)
        units = jnp.asarray(np.repeat(mask, width, axis=1))
        trained = rows, units, jnp.asarray(picks), keys, jnp.asarray(lambdas, jnp.float32)
        sae, losses = fit(*trained, settings=settings)
        codes = codes_of(sae, rows).reshape(seeds, n_all, n_pos, width)
    found = _counted(codes, jnp.asarray(mask), n, settings.features, pairs, normalise)
    back = np.concatenate([np.argsort(orders[0]), n + np.argsort(orders[1])])
    return DiscreteScores(
        nodes=found[0].sum(axis=1),
        places=found[0],
        pairs=found[2],
        codes=np.asarray(codes)[:, back],
        carries=found[1][:, back],
        positive=np.arange(n_all) < n,
        losses=np.asarray(losses),
        settings=settings,
    )


def _counted(codes, mask, n: int, features: int, pairs: bool, normalise: bool):
    """Node scores by position, whether a code is a positive's alone, and pair scores."""
    positive = jnp.arange(len(mask)) < n
    options = {"features": features}
    nodes = [unique_counts(c, positive, mask, normalise=normalise, **options) for c in codes]
    alone = [distinct(c, positive, mask, **options) for c in codes]
    found = (
        [pair_counts(c, mask, n_positive=n, normalise=normalise) for c in codes] if pairs else []
    )
    return np.stack(nodes), np.stack(alone), np.stack(found) if pairs else None


def _check(positive: np.ndarray, negative: np.ndarray, same: bool) -> None:
    for name, x in (("positive", positive), ("negative", negative)):
        if x.ndim != 4:
            raise ValueError(f"{name} has shape {x.shape}: give Float[example component d_model]")
    if positive.shape[1:] != negative.shape[1:]:
        raise ValueError(
            f"positives have {positive.shape[2]} components of width {positive.shape[3]} at"
            f" {positive.shape[1]} positions and negatives {negative.shape[2]} of"
            f" {negative.shape[3]} at {negative.shape[1]}: give outputs of one model, pooled alike"
        )
    if min(len(positive), len(negative)) < 2:
        raise ValueError(
            f"{len(positive)} positive and {len(negative)} negative examples: give at least two of"
            " each"
        )
    if same:
        raise ValueError("positives equal negatives: give negatives without the behaviour")


def by_content(x: Float[np.ndarray, "example ..."]) -> Int[np.ndarray, "example"]:
    """An order of examples that depends on nothing but what they hold."""
    return _order(_digests(x))


def _order(digests: list[bytes]) -> Int[np.ndarray, "example"]:
    return np.asarray(sorted(range(len(digests)), key=digests.__getitem__))


def _digests(x: np.ndarray) -> list[bytes]:
    return [hashlib.sha256(row).digest() for row in np.ascontiguousarray(x)]
