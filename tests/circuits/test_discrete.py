"""Discrete codes: against plain numpy, whatever the order of texts, and a planted head."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import SHAPES, slow_at

from jaxcirc import circuits, patching, zoo
from jaxcirc.circuits.discrete import (
    DiscreteScores,
    Settings,
    codes_of,
    component_outputs,
    discrete,
    distinct,
    edge_scores,
    end_scores,
    fit,
    head_curve,
    layer_ordered,
    pair_counts,
    rank_by_pairs,
    score_outputs,
    unique_counts,
)
from jaxcirc.circuits.discrete._sae import Rows, loss, loss_and_slopes, picked, start
from jaxcirc.models import toy
from jaxcirc.taps import Node, Read, Sites, Wiring, run
from jaxcirc.tasks import Contrast, logit_difference

FEW = Settings(features=12, steps=8, examples=6, penalty=0.05)
N, HEADS, WIDE = 9, 5, 6


def outputs(seed=0, n=N, heads=HEADS):
    return np.random.default_rng(seed).normal(size=(n, heads, WIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def found():
    return score_outputs(outputs(0), outputs(1, N + 2), settings=FEW, seeds=3)


def codes_by_hand(seed=0, n=11, n_pos=2, heads=4, features=5):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, features, (n, n_pos, heads)).astype(np.int32)
    return codes, rng.random((n, n_pos)) < 0.8


@pytest.mark.parametrize("normalise", [False, True])
def test_counts_are_those_of_sets(normalise):
    codes, seen = codes_by_hand()
    n = 6
    positive = np.arange(len(codes)) < n

    def sets(get, pos):
        ours = {get(e, pos) for e in range(n) if seen[e, pos]}
        return ours, {get(e, pos) for e in range(n, len(codes)) if seen[e, pos]}

    nodes = np.asarray(unique_counts(codes, positive, seen, features=5, normalise=normalise))
    pairs = np.asarray(pair_counts(codes, seen, n_positive=n, normalise=normalise))
    wanted = np.zeros((4, 4))
    for pos, head in itertools.product(range(2), range(4)):
        ours, theirs = sets(lambda e, p, head=head: codes[e, p, head], pos)
        share = max(len(ours | theirs), 1) if normalise else 1
        assert nodes[pos, head] == pytest.approx(len(ours - theirs) / share)
        for other in range(4):
            ours, theirs = sets(lambda e, p, h=(head, other): tuple(codes[e, p, list(h)]), pos)
            share = max(len(ours) + len(theirs), 1) if normalise else 1
            wanted[head, other] += len(ours - theirs) / share
    np.testing.assert_allclose(pairs, wanted, rtol=1e-6)
    if not normalise:
        np.testing.assert_array_equal(np.diag(pairs), nodes.sum(axis=0))


def test_counts_go_over_word_boundaries():
    codes = np.random.default_rng(1).integers(0, 9, (140, 1, 3)).astype(np.int32)
    n, seen = 70, np.ones((140, 1), bool)
    pairs = np.asarray(pair_counts(codes, seen, n_positive=n))
    for one, other in itertools.product(range(3), repeat=2):
        rows = [tuple(row) for row in codes[:, 0][:, [one, other]].tolist()]
        assert pairs[one, other] == len(set(rows[:n]) - set(rows[n:]))


def test_a_text_carries_a_code_that_no_negative_has():
    codes, seen = codes_by_hand(2)
    positive = np.arange(len(codes)) < 6
    alone = np.asarray(distinct(codes, positive, seen, features=5))
    for e, pos, head in np.ndindex(codes.shape):
        theirs = {codes[o, pos, head] for o in range(6, len(codes)) if seen[o, pos]}
        assert alone[e, pos, head] == (e < 6 and seen[e, pos] and codes[e, pos, head] not in theirs)


def by_sort(pairs):
    """The published count, where no two pairs tie but a pair with its mirror image."""
    n = len(pairs)
    ordered = [(h, g) for h in range(n) for g in range(n) if h != g]
    ordered.sort(key=lambda pair: -pairs[pair])
    flat = [head for pair in ordered for head in pair][: n * n // 2]
    return np.bincount(flat, minlength=n)


def test_heads_are_ranked_by_their_best_pairs():
    n = 8  # 16 pairs are counted, which no mirror image straddles
    upper = np.triu(np.random.default_rng(0).permutation(n * n).reshape(n, n).astype(float), 1)
    pairs = upper + upper.T
    np.testing.assert_allclose(rank_by_pairs(pairs), by_sort(pairs))
    np.testing.assert_allclose(rank_by_pairs(np.ones((4, 4))), np.full(4, 2.0))
    order = np.random.default_rng(1).permutation(n)
    np.testing.assert_allclose(rank_by_pairs(pairs[order][:, order]), rank_by_pairs(pairs)[order])
    directed = layer_ordered(pairs, np.arange(n) // 4)
    assert np.isfinite(directed).sum() == 16 and np.isnan(directed[4:, :]).all()


def test_codes_are_the_first_of_the_most_active_features():
    x = outputs(3)
    both = [start(jax.random.key(i), WIDE, FEW) for i in range(2)]
    sae = jax.tree.map(lambda *leaves: jnp.stack(leaves), *both)
    sae = eqx.tree_at(lambda s: s.b_dec, sae, sae.b_dec + 0.1)
    codes = np.asarray(codes_of(sae, jnp.asarray(x)))
    for trial in range(2):
        w_enc, b_enc, b = (np.asarray(a[trial]) for a in (sae.w_enc, sae.b_enc, sae.b_dec))
        features = np.maximum((x - b) @ w_enc + b_enc, 0)
        np.testing.assert_array_equal(codes[trial], features.argmax(axis=-1))
    off = eqx.tree_at(lambda s: s.b_enc, sae, sae.b_enc - 1e3)
    assert (np.asarray(codes_of(off, jnp.asarray(x))) == 0).all()  # none is active


def train(x, seeds=2, settings=FEW, penalties=None):
    picks, keys = picked(seeds, settings.examples, len(x))
    lambdas = jnp.full(seeds, settings.penalty) if penalties is None else jnp.asarray(penalties)
    seen = jnp.ones(x.shape[:2], bool)
    return fit(jnp.asarray(x), seen, jnp.asarray(picks), keys, lambdas, settings=settings)


@pytest.mark.parametrize("norm", slow_at(["column", "reference"], "reference"))
def test_training_is_the_published_recipe_written_out(norm):
    settings = Settings(features=12, steps=5, examples=6, penalty=0.05, decoder_norm=norm)
    x = outputs(4)
    sae, losses = train(x, 2, settings)
    picks, keys = picked(2, 6, N)
    rows = x[picks[1]].reshape(-1, WIDE).astype(np.float64)
    ours, said = adam(start(keys[1], WIDE, settings), rows, 0.05, 5, 1 if norm == "column" else 0)
    np.testing.assert_allclose(losses[1], said, rtol=1e-5)
    for name, value in ours.items():
        np.testing.assert_allclose(getattr(sae, name)[1], value, atol=2e-5)
    lengths = np.linalg.norm(np.asarray(sae.w_dec), axis=2 if norm == "column" else 1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def adam(sae, x, penalty, steps, axis):
    """Full-batch Adam with slopes by hand; the decoder's slope along itself is taken off."""
    p = {k: np.asarray(getattr(sae, k), np.float64) for k in ("w_enc", "b_enc", "w_dec", "b_dec")}
    m, v, said = {k: 0 * a for k, a in p.items()}, {k: 0 * a for k, a in p.items()}, []
    for t in range(1, steps + 1):
        centred = x - p["b_dec"]
        pre = centred @ p["w_enc"] + p["b_enc"]
        f = np.maximum(pre, 0)
        error = f @ p["w_dec"] + p["b_dec"] - x
        said.append((error**2).mean() + penalty * f.sum(axis=1).mean())
        out = 2 * error / error.size
        into = (out @ p["w_dec"].T + penalty / len(x)) * (pre > 0)
        slopes = {"w_enc": centred.T @ into, "b_enc": into.sum(0), "w_dec": f.T @ out}
        slopes["b_dec"] = out.sum(0) - (into @ p["w_enc"].T).sum(0)
        along = (slopes["w_dec"] * p["w_dec"]).sum(axis, keepdims=True)
        slopes["w_dec"] = slopes["w_dec"] - along * p["w_dec"]
        for k, slope in slopes.items():
            m[k], v[k] = 0.9 * m[k] + 0.1 * slope, 0.999 * v[k] + 0.001 * slope**2
            p[k] = p[k] - 1e-3 * (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
        p["w_dec"] = p["w_dec"] / np.linalg.norm(p["w_dec"], axis=axis, keepdims=True)
    return p, said


def test_slopes_are_those_of_the_loss_and_a_padded_row_teaches_nothing():
    rows = outputs(5).reshape(-1, WIDE)
    weights = (np.arange(len(rows)) % 3 > 0).astype(np.float32)
    moved = np.where(weights[:, None] > 0, rows, np.float32(9.0))
    only = rows[weights > 0]

    @jax.jit
    def both(key):
        sae, ones = start(key, WIDE, FEW), jnp.ones(len(only))
        plain = jax.value_and_grad(loss)
        cases = plain(sae, rows, weights, 0.1), plain(sae, moved, weights, 0.1)
        shorter = plain(sae, only, ones, 0.1)
        return *cases, shorter, loss_and_slopes(sae, Rows.of(moved, weights), 0.1)

    wanted, *others = both(jax.random.key(0))
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), wanted, other)


def test_the_order_of_examples_changes_nothing(found):
    ours, theirs = (
        np.random.default_rng(0).permutation(N),
        np.random.default_rng(1).permutation(N + 2),
    )
    again = score_outputs(outputs(0)[ours], outputs(1, N + 2)[theirs], settings=FEW, seeds=3)
    np.testing.assert_array_equal(again.nodes, found.nodes)
    np.testing.assert_array_equal(again.pairs, found.pairs)
    whole = np.concatenate([ours, N + theirs])
    np.testing.assert_array_equal(again.codes, found.codes[:, whole])
    np.testing.assert_array_equal(again.carries, found.carries[:, whole])


@pytest.mark.slow
def test_trials_do_not_know_of_each_other(found):
    alone = score_outputs(outputs(0), outputs(1, N + 2), settings=FEW, seeds=1, pairs=False)
    np.testing.assert_array_equal(alone.codes[0], found.codes[0])
    assert alone.pairs is None and len({tuple(c.ravel()) for c in found.codes}) == 3
    with pytest.raises(ValueError, match="pairs=True"):
        alone.by_pairs  # noqa: B018


def test_a_planted_head_ranks_first_in_every_seed():
    negative = outputs(7, 20, 12) * 0.3 + np.random.default_rng(8).normal(size=(12, WIDE)) * 2
    positive = negative.copy()
    positive[:, 5] *= -3
    scores = score_outputs(positive, negative, settings=FEW, seeds=10)
    others = np.delete(scores.nodes, 5, axis=1)
    assert (scores.nodes[:, 5] > 0).all() and (others == 0).all()
    assert (scores.by_pairs.argmax(axis=1) == 5).all()
    assert scores.ranked(4)[0] == Node("z", 1, 1)
    assert scores.carries[:, :20, 0, 5].any(axis=1).all() and not scores.carries[:, 20:].any()


@pytest.mark.parametrize(
    "positive, negative, said",
    [
        (outputs(0, 1), outputs(1), "1 positive and 9 negative examples: give at least two"),
        (outputs(0), outputs(0)[::-1], "positives equal negatives"),
        (outputs(0), outputs(1, N, 4), "5 components of width 6 at 1 positions and negatives 4"),
        (outputs(0)[0], outputs(1), "give Float"),
        (outputs(0, 2), outputs(1, 2), "examples=6 of 4 texts: train on at most 4"),
    ],
)
def test_what_cannot_be_scored_is_said(positive, negative, said):
    with pytest.raises(ValueError, match=said):
        score_outputs(positive, negative, settings=FEW, seeds=1)


def test_settings_are_checked():
    with pytest.raises(ValueError, match='use "column" or "reference"'):
        Settings(decoder_norm="row")  # pyright: ignore[reportArgumentType]
    for name, value in (("features", 1), ("penalty", -0.1), ("penalty", float("nan"))):
        with pytest.raises(ValueError, match=f"{name}={value}: give at least"):
            Settings(**{name: value})
    for options, said in (({"seeds": 0}, "seeds=0"), ({"seeds": 2, "penalties": [0.1]}, "1 pen")):
        with pytest.raises(ValueError, match=said):
            score_outputs(outputs(0), outputs(1), settings=FEW, **options)


def texts_of(vocab):
    """Six texts, half of them with padding."""
    tokens = np.random.default_rng(1).integers(0, vocab, (6, 7))
    mask = np.arange(7) >= np.asarray([0, 2, 0, 3, 0, 1])[:, None]
    return Contrast(jnp.asarray(tokens), jnp.asarray(mask), np.arange(6) < 3)


def written(model, texts):
    """What every head and MLP writes: Float[text pos layer component d_model]."""
    edits = Sites(head_out=Read(), mlp_out=Read())
    _, seen = run(model, texts.tokens, edits, mask=texts.mask, layers=model.n_layers)
    parts = np.asarray(seen.head_out), np.asarray(seen.mlp_out)[:, :, :, None]
    return np.moveaxis(np.concatenate(parts, axis=3), 0, 2)


def test_outputs_are_the_mean_of_what_components_write(case):
    texts = texts_of(14)
    whole, real = written(case.model, texts), np.asarray(texts.mask)[:, :, None, None, None]
    wanted = (whole * real).sum(1) / real.sum(1)
    found = component_outputs(case.model, texts, mlps=True, batch=4)
    np.testing.assert_allclose(found[:, 0], wanted.reshape(6, 15, 32), atol=1e-5)
    with pytest.raises(ValueError, match='pool="last"'):
        component_outputs(case.model, texts, pool="first")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_outputs_behind_a_norm_at_the_last_position_and_at_each():
    model, texts = toy(jax.random.key(0), **SHAPES["gemma"], n_layers=2), texts_of(50)
    whole, real = written(model, texts), np.asarray(texts.mask)
    heads = whole[:, :, :, :4]
    last = component_outputs(model, texts, pool="last")
    np.testing.assert_allclose(last[:, 0], heads[:, -1].reshape(6, 8, 16), atol=1e-5)
    each = component_outputs(model, texts, pool="each")
    np.testing.assert_allclose(each[real], heads.reshape(6, 7, 8, 16)[real], atol=1e-5)
    assert not each[~real].any()
    mean = component_outputs(model, texts, mlps=True)[:, 0].reshape(6, 2, 5, 16)
    weights = real[:, :, None, None, None] / real.sum(1)[:, None, None, None, None]
    np.testing.assert_allclose(mean, (whole * weights).sum(1), atol=1e-5)


@pytest.fixture(scope="module")
def case():
    return zoo.load("duplicate")


@pytest.mark.slow
def test_the_order_of_texts_changes_nothing_and_edges_follow_codes(case):
    prompts = case.prompts(12)
    texts = Contrast.of(prompts)
    settings = Settings(features=16, steps=5, examples=4)
    options = {"settings": settings, "seeds": 2, "mlps": True}
    scores = discrete(case.model, texts, **options)
    order = np.random.default_rng(0).permutation(24)
    again = discrete(case.model, texts.take(order), **options)
    np.testing.assert_array_equal(again.pairs, scores.pairs)
    wiring = case.wiring
    edges = edge_scores(scores, wiring)
    by_name = circuits.score(case.model, prompts, "discrete", trials=2, settings=settings)
    np.testing.assert_allclose(by_name.importance, edges, rtol=1e-6)
    assert by_name.unsigned


def made(pairs, nodes):
    """Scores with these pairs and nodes, one trial."""
    codes = np.zeros((1, 4, 1, len(nodes)), int)
    alone, positive = codes > 0, np.arange(4) < 2
    shaped = nodes[None], nodes[None, None], pairs[None]
    return DiscreteScores(*shaped, codes, alone, positive, np.zeros((1, 1)), FEW)


def test_edges_take_the_scores_of_their_ends():
    wiring = Wiring(2, 4, 2)
    rng = np.random.default_rng(0)
    pairs, nodes = rng.random((10, 10)), rng.random(10)
    scores = made(pairs, nodes)
    edges, ends = edge_scores(scores, wiring), end_scores(scores, wiring)
    at = wiring.find(Node("z", 0, 1), Node("q_in", 1, 3))
    assert edges[at] == pairs[1, 8] and ends[at] == nodes[[1, 8]].min()
    shared = wiring.find(Node("z", 0, 1), Node("v_in", 1, 1))  # read by heads 2 and 3
    assert edges[shared] == max(pairs[1, 7], pairs[1, 8])
    into = wiring.find(Node("embed", 0), Node("mlp_in", 1))
    assert edges[into] == ends[into] == nodes[9]
    out = wiring.find(Node("mlp_out", 0), Node("final_resid", 2))
    assert edges[out] == ends[out] == nodes[4]
    with pytest.raises(ValueError, match="scores of 10 components for a wiring of 8"):
        end_scores(scores, Wiring(2, 4, 2, mlp=False))
    assert scores.ranked(5)[0] == Node("z", int(nodes.argmax()) // 5, int(nodes.argmax()) % 5)


def test_pairs_take_little_memory_at_the_published_size():
    codes = jax.ShapeDtypeStruct((500, 1, 144), jnp.int32)
    seen = jax.ShapeDtypeStruct((500, 1), bool)
    made = pair_counts.lower(codes, seen, n_positive=250).compile().memory_analysis()
    assert made.temp_size_in_bytes < 50e6  # the table of the published code: 6.6 GB


@pytest.mark.slow
def test_faithfulness_runs_from_no_head_to_all(case):
    prompts = case.prompts(16)
    heads = [Node("z", layer, head) for layer in range(3) for head in range(4)]
    truth = [Node("z", 0, 0), Node("z", 1, 3), Node("z", 2, 1)]
    best = truth + [head for head in heads if head not in truth]
    orders = {"truth": best, "reversed": best[::-1]}
    zero = patching.constant(case.model, prompts, {"z": 0.0, "mlp_out": 0.0})
    options = {"metric": logit_difference, "ablation": zero}
    curves = head_curve(case.model, prompts, orders, (0, 3, 12), random=3, **options)
    assert curves["random"].f[1].value < curves["truth"].f[1].value - 0.3
    assert curves["random"].f[2].value == pytest.approx(1)
    assert [f.value for f in curves["truth"].f] == pytest.approx([0, 1, 1], abs=0.35)
    assert curves["truth"].f[1].value > curves["reversed"].f[1].value + 0.5
    assert curves["truth"].area.value > curves["reversed"].area.value
    kept = head_curve(case.model, prompts, orders, (0, 3), free=1, **options)
    assert kept["truth"].area is None
    assert kept["truth"].f[0].value == pytest.approx(0)
