"""Scores of features and errors against autograd at every node, exact patching, and their laws."""

import dataclasses

import jax
import numpy as np
import pytest
from cases import close
from feature_oracle import Case, case, clean_parts, dialled, node_scores

from jaxcirc import attribution
from jaxcirc.circuits.features import Basis, FeatureNode, nodes, select
from jaxcirc.circuits.features._slopes import LADDER, Along
from jaxcirc.tasks import kl

IG10 = {"method": "ig", "steps": 10}


def scored(of, **options):
    return nodes(of.model, of.prompts, of.basis, **options)


def dense(scores) -> np.ndarray:
    """[example place pos feature_and_error]."""
    n = scores.raw.shape[0]
    return scores.raw.toarray().reshape(n, len(scores.layout.places), scores.layout.n_pos or 1, -1)


def test_atp_is_the_gradient_at_every_node():
    at = case()
    found = dense(scored(at))
    close(found, node_scores(at), 1e-9)
    assert np.abs(found[..., -1]).max() > 1e-3 and np.abs(found[..., :-1]).max() > 1e-3


@pytest.mark.parametrize("rule", ["left", "midpoint", "gauss"])
def test_integrated_gradients_are_means_of_gradients(rule):
    at = case()
    found = dense(scored(at, rule=rule, **IG10))
    close(found, node_scores(at, rule), 1e-9)
    assert np.abs(found - node_scores(at)).max() > 1e-3, "and not attribution patching"


def test_one_left_step_is_attribution_patching():
    for one, other in zip(Along("ig", 1, "left").path(1), Along("atp").path(1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_exact_effects_and_their_slopes():
    at, scores = case(), scored(case(), method="exact")
    chosen = select(scores, 20)
    rng = np.random.default_rng(0)
    chosen = np.unique([*chosen, *rng.choice(scores.active, 20)])
    cells = np.stack(scores.layout.split(chosen), axis=1)
    h = 2e-3
    values = dialled(at, cells, [0.0, 1.0, h, -h, 2 * h, -2 * h])
    close(scores.raw[:, chosen].toarray().T, values[:, 1] - values[:, 0], 1e-9)
    slope = (8 * (values[:, 2] - values[:, 3]) - (values[:, 4] - values[:, 5])) / (12 * h)
    close(scored(at).raw[:, chosen].toarray().T, slope, 1e-9)


def test_gaps_close_and_residual_places_carry_the_total_effect():
    at = case()
    fine, atp = scored(at, method="ig", steps=48), scored(at)
    np.testing.assert_allclose(fine.gap, 0, atol=1e-9)
    assert np.abs(atp.gap).min() > 1e-4
    p = at.prompts
    turned = dataclasses.replace(p, clean=p.corrupt, corrupt=p.clean)
    total = nodes(at.model, turned, at.basis).base - fine.base
    assert [fine.layout.places[i].site for i in fine.cuts] == ["resid_post", "resid_post"]
    for i in fine.cuts:
        close(fine.joint[:, i], total, 1e-9)
    assert fine.effect == pytest.approx(total.mean())


def test_points_are_as_many_as_the_tolerance_asks_for():
    """Each place takes the first of the ladder whose gap, by hand, is small enough."""
    at = case()
    found = {n: scored(at, method="ig", steps=n) for n in LADDER}
    scale = np.abs(found[LADDER[0]].joint).mean(axis=0).max()
    for tolerance in (1e-1, 1e-2, 1e-6):
        scores = scored(at, method="ig", tolerance=tolerance)
        for i, steps in enumerate(scores.steps):
            part = scores.layout.of_place(i)
            missed = {
                n: np.abs(f.raw.toarray()[:, part].sum(axis=1) - f.joint[:, i]).mean()
                for n, f in found.items()
            }
            enough = [n for n in LADDER if missed[n] <= tolerance * scale]
            assert steps == (enough[0] if enough else LADDER[-1])
            close(scores.raw.toarray()[:, part], found[steps].raw.toarray()[:, part], 1e-12)
    assert len(set(scores.steps)) > 1, "the first place is rough"
    with pytest.raises(ValueError, match="tolerance=0: give a share above 0"):
        scored(at, method="ig", tolerance=0)


def test_gaps_may_be_left_out():
    at = case()
    scores = scored(at, gaps=False)
    close(scores.raw.toarray(), scored(at).raw.toarray(), 1e-12)
    assert scores.joint is None and len(select(scores, 5)) == 5
    with pytest.raises(ValueError, match="joint effects were not measured: nodes"):
        select(scores, share=0.1)


def test_errors_and_features_share_the_effect():
    scores = scored(case(), **IG10)
    table = dense(scores).mean(axis=0)
    assert scores.error_share == pytest.approx(
        np.abs(table[..., -1]).sum() / np.abs(table).sum(), abs=1e-12
    )
    assert 0 < scores.error_share < 1
    shares = table[..., -1].sum(axis=1) / table.sum(axis=(1, 2))
    np.testing.assert_allclose(scores.error_shares, shares, rtol=1e-9)


def test_relevance_of_a_places_nodes_adds_up_to_its_own():
    at = case()
    scores = scored(at, method="relp")
    whole = attribution.nodes(at.model, at.prompts, sites=("mlp_out",), rule="relp").mlp_out
    close(dense(scores)[:, 2].sum(axis=(1, 2)), np.asarray(whole)[:, 1], 1e-9)
    assert np.abs(scores.mean - scored(at).mean).max() > 1e-3


def test_neurons_are_the_identity_dictionary():
    at = case()
    basis = Basis.neurons(at.model, ["mlp_out.1", "mlp_post.1"])
    scores = nodes(at.model, at.prompts, basis)
    hidden, out = (
        scores.raw.toarray()[:, scores.layout.of_place(i)].reshape(3, 6, -1) for i in range(2)
    )
    clean, corrupt, slope = jax.tree.map(np.asarray, clean_parts(at))
    decode = at.basis.dictionaries[2].decode
    moved = [np.asarray(decode(f) + e) for f, e in (corrupt[2], clean[2])]
    close(out[..., :-1], (moved[0] - moved[1]) * slope[2][1], 1e-9)
    close(hidden.sum(axis=2), out.sum(axis=2), 1e-9)
    assert not hidden[..., -1].any() and not out[..., -1].any(), "no errors"
    assert scores.error_share == 0


def test_summed_over_positions():
    at, padded = case(), case(pads=2)
    by_position, summed = scored(at), scored(at, by_position=False)
    close(dense(summed)[:, :, 0], dense(by_position).sum(axis=2), 1e-9)
    close(dense(scored(padded))[:, :, 0], node_scores(padded).sum(axis=2), 1e-9)
    exact = scored(padded, method="exact")
    cell = exact.layout.split(select(exact, 1))
    values = dialled(padded, [(cell[0][0], -1, cell[2][0])], [0.0, 1.0])[0]
    close(exact.raw[:, select(exact, 1)].toarray()[:, 0], values[1] - values[0], 1e-9)
    with pytest.raises(ValueError, match="by_position=False"):
        scored(padded, by_position=True)


def test_batches_and_padding_do_not_matter():
    """Here nodes lie at all positions; nodes at one are cut free of padding before they are run."""
    at = case()
    padded = Case(at.model, at.prompts.padded_to(9), at.basis)
    assert padded.prompts.mask.shape == (3, 9)
    summed = {"by_position": False}
    found = scored(padded, batch=2, **summed).raw.toarray()
    close(found, scored(at, **summed).raw.toarray(), 1e-9)
    close(scored(padded).raw.toarray(), scored(at).raw.toarray(), 1e-12)
    exact = scored(at, method="exact").raw.toarray()
    close(scored(padded, method="exact").raw.toarray(), exact, 1e-9)


def test_zero_and_mean_patches():
    at = case()
    clean, corrupt, slope = jax.tree.map(np.asarray, clean_parts(at))
    live = (np.arange(6) > 0)[:, None]
    for patch in ("zero", "mean"):
        found = dense(scored(at, patch=patch))
        for i, (f, e) in enumerate(clean):
            goal = [x.mean(axis=0) if patch == "mean" else 0 * x for x in corrupt[i]]
            features = (goal[0] - f) * slope[i][0] * live
            errors = ((goal[1] - e) * slope[i][1] * live).sum(axis=-1)
            close(found[:, i, :, :-1], features, 1e-9)
            close(found[:, i, :, -1], errors, 1e-9)
        assert not found[:, :, 0].any(), "the first token keeps its own"


def test_sinks_pass():
    at = case()
    norms = {f"{p.site}.{p.layer}": 1e-9 for p in at.basis.places[:1]}
    named = {
        f"{p.site}.{p.layer}": d
        for p, d in zip(at.basis.places, at.basis.dictionaries, strict=True)
    }
    sunk = Basis.of(at.model, named, norms)
    found, whole = (dense(nodes(at.model, at.prompts, b)) for b in (sunk, at.basis))
    assert not found[:, 0].any() and whole[:, 0].any()
    close(found[:, 1:], whole[:, 1:], 1e-12)


def test_kl_has_no_slope_at_the_clean_run():
    at = case()
    with pytest.raises(ValueError, match='method="ig"'):
        nodes(at.model, at.prompts, at.basis, kl)
    last = at.basis.take([3])
    scores = nodes(at.model, at.prompts, last, kl, method="ig", steps=10)
    assert scores.sign == 1 and np.abs(scores.gap).max() < 1e-6 < np.abs(scores.sums).max()


def test_selection_by_number_threshold_and_share():
    scores = scored(case())
    size = np.abs(scores.mean)
    best = select(scores, 12)
    assert len(best) == 12 and size[best].min() >= np.delete(size, best).max()
    assert set(select(scores, threshold=size[best[4]])) == set(best[:5])
    assert set(select(scores, share=size[best[4]] / abs(scores.effect))) == set(best[:5])
    signed = select(scores, 3, signed=True)
    assert scores.importance[signed[0]] == scores.importance.max()
    assert len(select(scores, 10**6)) == len(scores.active), "what has no effect is not chosen"
    with pytest.raises(ValueError, match="one of n="):
        select(scores, 3, threshold=0.1)


def test_names_and_columns_are_inverse():
    layout = case().basis.layout(6)
    for column in (0, 24, 25, 149, 150, layout.size - 1):
        node = layout.node(column)
        assert layout.column(node) == column and FeatureNode.parse(str(node)) == node
    assert layout.node(24).is_error and str(layout.node(24)) == "resid_post.0/error at 0"
    assert layout.scalars(np.asarray([0, 24])) == 1 + 8
    for wrong in ("mlp_out.9/3 at 1", "resid_post.0/25 at 1", "resid_post.0/3", "nowhere.1/2"):
        with pytest.raises(ValueError, match="no node"):
            layout.column(FeatureNode.parse(wrong))


@pytest.mark.parametrize(
    "names, message",
    [
        ((), "no dictionaries"),
        (("resid_post",), "a site and a layer"),
        (("resid_post.7",), "at a layer 0..1"),
        (("z.1",), "takes 8 numbers|rebuilds what it reads"),
        (("mlp_post.1",), "takes 8 numbers, toy has 12"),
        (("resid_pre.1", "resid_post.0"), "named twice"),
        (("blocks.1.hook_mlp_out", "mlp_out.1"), "named twice"),
    ],
)
def test_bases_that_cannot_be(names, message):
    at = case()
    with pytest.raises(ValueError, match=message):
        Basis.of(at.model, dict.fromkeys(names, at.basis.dictionaries[0]))


def test_words_that_nodes_do_not_know():
    with pytest.raises(ValueError, match="method='eap': use one of"):
        scored(case(), method="eap")
    with pytest.raises(ValueError, match="patch='noise': use one of"):
        scored(case(), patch="noise")
