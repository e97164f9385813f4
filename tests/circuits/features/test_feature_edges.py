"""Edges against autograd through the paths that are left, and exact path patching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close
from feature_edges import chosen, expected, kinds_of
from feature_oracle import Case, case, path_patched

from jaxcirc.circuits.features import (
    _edges,
    _pairs,
    _slopes,
    edges,
    nodes,
    patch_edges,
    select_edges,
)
from jaxcirc.circuits.features._reach import Link, links
from jaxcirc.taps import Add, ByLayer, Chain, Code, Read, Sites, Splice

TYPES = {
    ("resid_post", "attn_out"),
    ("resid_post", "mlp_out"),
    ("resid_post", "resid_post"),
    ("attn_out", "mlp_out"),
    ("attn_out", "resid_post"),
    ("mlp_out", "resid_post"),
    ("resid_post", "metric"),
}


def found_edges(at, some, **options):
    return edges(at.model, at.prompts, at.basis, some, **options)


def test_every_type_of_edge_is_its_derivative():
    at = case()
    scores, some = chosen(at)
    found = found_edges(at, some)
    close(found.raw.toarray(), expected(at, scores, found), 1e-9)
    kinds = kinds_of(found)
    assert {kind[:2] for kind in kinds} == TYPES
    for source, reader in TYPES:
        ends = {kind[2:] for kind in kinds if kind[:2] == (source, reader)}
        last = (False,) if reader == "metric" else (True, False)
        assert ends == {(u, d) for u in (True, False) for d in last}, (source, reader)
    assert found.effect == pytest.approx(scores.effect, rel=1e-9)


@pytest.mark.slow
def test_in_parallel_with_blocks_between_that_are_not_spliced():
    at = case("parallel")
    scores, some = chosen(at)
    found = found_edges(at, some)
    close(found.raw.toarray(), expected(at, scores, found), 1e-9)
    assert {kind[:2] for kind in kinds_of(found)} == {
        ("attn_out", "mlp_out"),
        ("attn_out", "metric"),
        ("mlp_out", "metric"),
    }
    assert found.effect == pytest.approx(scores.effect, rel=1e-9)


@pytest.mark.slow
def test_slopes_of_readers_may_be_integrated():
    at = case()
    scores, some = chosen(at)
    found = found_edges(at, some, method="ig", steps=10, rule="left")
    last = found.reader == len(some)
    by_hand = expected(at, scores, found, "left")
    close(found.raw.toarray()[:, ~last], by_hand[:, ~last], 1e-9)
    assert np.abs(found.raw.toarray() - found_edges(at, some).raw.toarray()).max() > 1e-4
    integrated = nodes(at.model, at.prompts, at.basis, method="ig", steps=10, rule="left")
    of = [integrated.of(some[u]) for u in found.source[last]]
    close(found.mean[last], np.asarray(of), 1e-9)


def test_summed_over_positions_and_padding():
    at = case(pads=2)
    scores, some = chosen(at)
    assert some[0].pos is None
    found = found_edges(at, some)
    close(found.raw.toarray(), expected(at, scores, found), 1e-9)
    padded = Case(at.model, at.prompts.padded_to(9), at.basis)
    close(found_edges(padded, some, chunk=16).raw.toarray(), found.raw.toarray(), 1e-12)


def test_positions_are_crossed_by_attention_alone():
    found = found_edges(case(), chosen(case())[1])
    crossing = set()
    for k in np.flatnonzero(np.abs(found.mean) > 1e-9):
        u, d = found.edge(int(k))
        if d != "metric" and u.pos != d.pos:
            assert u.pos < d.pos
            crossing.add((u.site, d.site))
    assert crossing == {("resid_post", "attn_out")}


def test_a_residual_place_cuts_every_path():
    places = case().basis.places
    pairs = {(link.source, link.target) for link in links(places, parallel=False)}
    assert pairs == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (3, None)}
    beside = {(link.source, link.target) for link in links(places, parallel=True)}
    assert pairs - beside == {(1, 2)}


@pytest.mark.parametrize("by_position", [True, False])
def test_exact_edges_are_paths_patched_by_hand(by_position):
    at = case()
    scores, some = chosen(at, by_position)
    found = found_edges(at, some)
    numbers = np.random.default_rng(0).choice(np.flatnonzero(found.mean), 48, replace=False)
    numbers = np.union1d(numbers, np.flatnonzero(found.reader == len(some))[:4])
    exact = patch_edges(at.model, at.prompts, at.basis, found, numbers, chunk=32)
    columns = np.asarray([scores.layout.column(node) for node in some])
    cells = np.append(np.stack(scores.layout.split(columns), axis=1), [[-1, -1, 0]], axis=0)
    ends = np.concatenate([cells[found.source[numbers]], cells[found.reader[numbers]]], axis=1)
    close(exact, path_patched(at, ends), 1e-9)
    assert (np.abs(exact).max(axis=0) > 1e-9).mean() > 0.9


def test_selection_of_edges():
    found = found_edges(case(), chosen(case())[1])
    kept = select_edges(found, 10)
    assert kept.sum() == 10
    assert np.abs(found.mean[kept]).min() >= np.abs(found.mean[~kept]).max()
    least = np.abs(found.mean[kept]).min()
    assert (select_edges(found, threshold=least) == kept).all()
    assert (select_edges(found, share=0.999 * least / abs(found.effect)) == kept).all()
    assert select_edges(found, 5, signed=True)[(found.sign * found.mean).argmax()]


def test_no_nodes_and_unknown_words():
    at = case()
    with pytest.raises(ValueError, match="no nodes: edges"):
        found_edges(at, [])
    with pytest.raises(ValueError, match="method='exact': use one of 'atp', 'ig'"):
        found_edges(at, chosen(at)[1][:2], method="exact")
    apart = [node for node in chosen(at)[1] if node.site == "attn_out"]
    with pytest.raises(ValueError, match="no path joins these nodes"):
        found_edges(at, apart)


# The documented bugs of other code, put back one by one: each must break the law above.

WEIGHTS = ("along", "resolved")
"""Static arguments of `_edges._weights`."""


def edge_error(**options) -> float:
    """The largest deviation from autograd, between a stream and the MLP behind it."""
    at = case()
    scores, some = chosen(at)
    some = [node for node in some if node.site == "mlp_out" or node.layer == 0]
    found = found_edges(at, some, **options)
    kind = "left" if options else "atp"
    return float(np.abs(found.raw.toarray() - expected(at, scores, found, kind)).max())


@pytest.fixture
def weights_with(monkeypatch):
    """Replace a part of `_edges`, and compile the weights anew."""

    def replace(name, new):
        monkeypatch.setattr(_edges, name, new)
        plain = _edges._weights.__wrapped__
        fresh = jax.jit(lambda *xs, **named: plain(*xs, **named), static_argnames=WEIGHTS)
        monkeypatch.setattr(_edges, "_weights", fresh)

    return replace


@pytest.mark.slow
def test_unbroken():
    assert edge_error() < 1e-12
    assert edge_error(method="ig", steps=10, rule="left") < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [(np.zeros(10), np.full(10, 0.1)), (np.arange(10) / 10, np.ones(10))],
    ids=["every step sees the clean rows", "a sum in place of a mean"],
)
def test_integrated_gradients_that_are_not(monkeypatch, path):
    """feature-circuits at HEAD, with an indexed metric and with one that is not."""
    monkeypatch.setattr(_slopes, "quadrature", lambda *_: path)
    assert edge_error(method="ig", steps=10, rule="left") > 1e-4


@pytest.mark.slow
def test_gradients_through_a_splice_that_stops_its_error(monkeypatch):
    """Upstream gradients of a model whose dictionaries hold their errors constant."""

    def stopped(model, objective, prompts, xs, below, *, places, relevance):
        def total(nudges):
            edits = Sites()
            for place, dictionary, nudge in zip(places, basis.dictionaries, nudges, strict=True):
                edit = Chain((Splice(dictionary, Read(), "stopped"), Add(nudge)))
                edits = edits | Sites(**{place.site: ByLayer((edit,), (place.layer,))})
            return objective(model, prompts.clean, prompts, edits, below)[0].sum()

        return tuple(jax.grad(total)([jnp.zeros_like(x) for x in xs]))

    basis = case().basis.take([0, 1, 2])
    at = Case(case().model, case().prompts, basis)
    honest = nodes(at.model, at.prompts, at.basis).mean
    monkeypatch.setattr(_slopes, "clean_slopes", stopped)
    assert np.abs(nodes(at.model, at.prompts, at.basis).mean - honest).max() > 1e-4


@pytest.mark.slow
def test_errors_that_send_nothing(weights_with):
    """feature-circuits at HEAD: the gradient of the residue is zeroed before it is read."""
    honest = _edges.vectors

    def without_errors(directions, step, pos, index):
        return honest(directions, Code(step.features, jnp.zeros_like(step.error)), pos, index)

    weights_with("vectors", without_errors)
    assert edge_error() > 1e-5


@pytest.mark.slow
def test_errors_that_forget_the_reconstruction(weights_with):
    """d epsilon / dx has a part -d x_hat / dx."""

    def forgets(dictionary, x):
        features = dictionary.encode(x)
        return Code(features, x - jax.lax.stop_gradient(dictionary.decode(features)))

    weights_with("encode", forgets)
    assert edge_error() > 1e-5


@pytest.mark.slow
def test_paths_through_third_places(monkeypatch):
    """Issue 10 there: the indirect effects that were to be subtracted were always 0."""

    def open_links(places, parallel):
        return [Link(one.source, one.target, ()) for one in links(places, parallel)]

    monkeypatch.setattr(_pairs, "links", open_links)
    assert edge_error() > 1e-5


@pytest.mark.slow
def test_readers_that_are_chosen_in_every_prompt_by_itself(monkeypatch):
    """Where a reader is small it loses its edges, and the mean still divides by all prompts."""
    honest = _edges.slopes

    def small_are_dropped(*args):
        found = honest(*args)
        sizes = [jnp.abs(slope).max(axis=(1, 2), keepdims=True) for slope in found.each]
        pairs = zip(sizes, found.each, strict=True)
        return found._replace(each=tuple(jnp.where(s < s.max(), 0, slope) for s, slope in pairs))

    monkeypatch.setattr(_edges, "slopes", small_are_dropped)
    assert edge_error() > 1e-5
