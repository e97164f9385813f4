"""Discovery on a model in which one head is known to do the work."""

import equinox as eqx
import jax
import numpy as np
import pytest
from cases import answered, close, pairs

from jaxcirc import patching
from jaxcirc.circuits import discover
from jaxcirc.models import toy
from jaxcirc.taps import Node
from jaxcirc.tasks import kl

PLANTED = Node("z", 1, 2)


@pytest.fixture(scope="module")
def planted():
    """A model whose heads and MLPs write next to nothing, but for one head; and prompts for it."""
    model = toy(jax.random.key(3), n_layers=3, norm=None, tied=False, positions="learned")
    attn, mlp = model.blocks.attn, model.blocks.mlp
    quiet = (0.01 * attn.w_o).at[PLANTED.layer, PLANTED.index].set(3 * attn.w_o[1, 2])
    weights = (quiet, 0.01 * mlp.w_out)
    model = eqx.tree_at(lambda m: (m.blocks.attn.w_o, m.blocks.mlp.w_out), model, weights)
    return model, answered(model, pairs(first=4, batch=8))


@pytest.fixture(scope="module")
def found(planted):
    return discover(*planted, verify=6, sizes=(1, 3, 9), draws=2)


def test_the_planted_head_is_first_and_sufficient(found):
    assert found.nodes[0] == PLANTED
    assert found.importance[0] > 10 * abs(found.importance[1])
    assert found.importance == sorted(found.importance, reverse=True)
    assert found.curve.faithfulness[0].value == pytest.approx(1, abs=0.2)
    assert found.curve.complement[0].value == pytest.approx(0, abs=0.2)


def test_effects_are_those_of_patching(planted, found):
    effects = patching.patch(*planted, found.nodes)
    close([one.value for one in found.exact], effects.mean(), 1e-4)
    assert found.clean.value == pytest.approx(float(effects.base.mean()), rel=1e-4)
    assert found.corrupt.value == pytest.approx(float(effects.source.mean()), rel=1e-4)


def test_scores_cover_all_nodes_and_nodes_are_the_largest_of_them(found):
    assert {site: mean.shape for site, mean in found.scores.items()} == {
        "z": (3, 4),
        "mlp_out": (3,),
    }
    everything = np.sort(np.abs(np.concatenate([np.ravel(x) for x in found.scores.values()])))
    close(np.sort([abs(one.value) for one in found.estimate]), everything[-6:], 1e-4)


def test_sizes_above_verify_are_left_out(found):
    assert found.curve.sizes == (1, 3)


def test_no_size_within_verify_is_an_error(planted):
    with pytest.raises(ValueError, match=r"no size is at most verify=2: discover\(..., sizes="):
        discover(*planted, verify=2, sizes=(5, 20))


def test_denoising_and_kl_find_it_too(planted):
    other = discover(*planted, direction="denoise", metric=kl, verify=2, sizes=(1,), draws=1)
    assert other.nodes[0] == PLANTED and other.importance[0] > 0


def test_progress_tells_both_stages(planted):
    told = []
    options = {"verify": 2, "sizes": (1,), "draws": 1}
    discover(
        *planted, **options, progress=lambda stage, done, total: told.append((stage, done == total))
    )
    assert {stage for stage, _ in told} == {"exact patching", "faithfulness"}
    assert told[-1] == ("faithfulness", True)
