"""Subspace patching against plain edits, a planted direction, and a planted illusion."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import answered, pairs, tiny

from jaxcirc.patching import das, illusion, patch, subspace
from jaxcirc.taps import Node, Read, Set, Sites, run
from jaxcirc.tasks import logit_difference

MODEL, PROMPTS = tiny("grouped"), pairs(first=3, batch=12, pads=1)


def test_a_subspace_of_everything_is_the_whole_node():
    for node in (Node("resid_mid", 1), Node("z", 1, 2)):
        width = MODEL.axis_size("d_model" if node.site == "resid_mid" else "d_head")
        found = subspace(MODEL, PROMPTS, node, jnp.eye(width))
        np.testing.assert_allclose(found.raw, patch(MODEL, PROMPTS, [node]).raw, atol=2e-4)


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_a_direction_equals_the_edit_by_hand(direction):
    v = np.random.default_rng(0).normal(size=16).astype(np.float32)
    found = subspace(MODEL, PROMPTS, Node("resid_post", 1), v, direction=direction, pos="changed")
    ends = (PROMPTS.clean, PROMPTS.corrupt)
    base, source = ends if direction == "noise" else ends[::-1]
    reads = Sites(resid_post=Read())
    here, there = (
        run(MODEL, tokens, reads, mask=PROMPTS.mask)[1].resid_post for tokens in (base, source)
    )
    unit = v / np.linalg.norm(v)
    value = here + ((there - here) @ unit)[..., None] * unit
    where = (np.arange(3) == 1)[:, None, None, None] & np.asarray(PROMPTS.span("changed"))[
        ..., None
    ]
    edit = Sites(resid_post=Set(value, where))
    after, before = (
        run(MODEL, base, e, mask=PROMPTS.mask, logits_at=-1)[0] for e in (edit, Sites())
    )
    expected = logit_difference(after, PROMPTS) - logit_difference(before, PROMPTS)
    np.testing.assert_allclose(found.raw[:, 0], expected, atol=2e-4)


def test_an_orthogonal_direction_changes_nothing_where_runs_agree():
    same = eqx.tree_at(lambda p: p.corrupt, PROMPTS, PROMPTS.clean)
    found = subspace(MODEL, same, Node("resid_mid", 1), jnp.ones(16))
    np.testing.assert_allclose(found.raw, 0, atol=1e-5)


def test_alignment_finds_what_moves_the_output_most():
    """Better than the best of 50 random directions, and no better than 16 dimensions."""
    node = Node("resid_post", 1)
    found = das(MODEL, PROMPTS, node, steps=150)
    assert float(jnp.linalg.norm(found.basis)) == pytest.approx(1, abs=1e-5)
    assert found.losses[-1] < found.losses[0]
    random = jax.random.normal(jax.random.key(1), (50, 16))
    effects = [float(subspace(MODEL, PROMPTS, node, v).raw.mean()) for v in random]
    learned = float(subspace(MODEL, PROMPTS, node, found.basis).raw.mean())
    assert learned < min(effects)


def planted():
    """A model and prompts whose hidden direction n tells clean from corrupt but is in W_out's
    kernel, while r drives the output and never varies: v = n + r is the illusion."""
    node = Node("mlp_post", 2)
    w_out = np.array(MODEL.blocks.mlp.w_out)
    _, seen = run(MODEL, PROMPTS.clean, Sites(mlp_post=Read()), mask=PROMPTS.mask)
    _, other = run(MODEL, PROMPTS.corrupt, Sites(mlp_post=Read()), mask=PROMPTS.mask)
    moved = np.asarray(other.mlp_post - seen.mlp_post)[2, :, -1]
    null = np.linalg.svd(w_out[2].T)[2][16:]
    kernel = null.T @ null
    tells = np.linalg.svd(moved @ kernel)[2][0]
    tells *= np.sign((moved @ tells).sum())
    still = np.linalg.svd(np.concatenate([moved, null]))[2][-1]
    return node, tells, still


def test_the_parts_of_a_direction():
    node, tells, still = planted()
    prompts, others = answered(MODEL, PROMPTS), answered(MODEL, pairs(first=4, batch=40))
    found = illusion(MODEL, prompts, node, tells + still, elsewhere=others)
    assert found.row_share == pytest.approx(0.5, abs=0.05)
    assert abs(found.null.value) < 1e-4
    assert abs(found.row.value) < 0.05 * abs(found.direction.value)
    whole = patch(MODEL, prompts, [node]).recovered(0)
    assert found.whole.value == pytest.approx(whole.value, abs=1e-4)
    assert found.elsewhere is not None


def test_errors():
    with pytest.raises(ValueError, match=r"a basis is Float\[16 k\], not \(4, 1\)"):
        subspace(MODEL, PROMPTS, Node("resid_mid", 1), jnp.ones(4))
    with pytest.raises(ValueError, match="k=17: resid_mid 1 has 16 dimensions"):
        das(MODEL, PROMPTS, Node("resid_mid", 1), k=17)
    with pytest.raises(ValueError, match='the checks need Node\\("mlp_post", layer\\)'):
        illusion(MODEL, PROMPTS, Node("resid_mid", 1), jnp.ones(16))
