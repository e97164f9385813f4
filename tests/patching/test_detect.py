"""Which effects count, on made-up sweeps."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcirc.patching import Effects, detect, jaccard


def effects(mean, noise=0.01, n=40, templates=8, direction="noise", seed=0):
    """A sweep with these mean importances [layer head]."""
    mean = np.asarray(mean, float)
    values = mean + noise * np.random.default_rng(seed).normal(size=(n, *mean.shape))
    sign = -1.0 if direction == "noise" else 1.0
    axes = ("example", "layer", "head")
    ids = jnp.arange(n) % templates
    one = jnp.zeros(n)
    return Effects(jnp.asarray(sign * values), one, one, ids, "z", "ld", direction, sign, axes)


FEW = np.zeros((6, 5))
FEW[4, 1], FEW[5, 2] = 2.0, -1.5


@pytest.mark.parametrize("rule", ["sd", "mad", "fdr"])
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_what_stands_out_is_found_with_its_sign(rule, direction):
    found = detect(effects(FEW, direction=direction), rule, floor=0.1)
    assert found.cells() == [(4, 1), (5, 2)]
    assert found.cells("positive") == [(4, 1)] and found.cells("negative") == [(5, 2)]


def test_a_giant_hides_others_from_the_standard_deviation_alone():
    heavy = FEW.copy()
    heavy[0, 0] = 40.0
    assert detect(effects(heavy), "sd").cells() == [(0, 0)]
    assert detect(effects(heavy), "mad", floor=0.1).cells() == [(0, 0), (4, 1), (5, 2)]


def test_the_threshold_and_the_floor_are_arguments():
    found = effects(FEW)
    assert detect(found, "sd", 4.5).cells() == []
    assert detect(found, "sd", 0.5).found.sum() == 2
    assert detect(found, "sd", floor=1.8).cells() == [(4, 1)]


def test_false_discoveries_stay_rare():
    false = sum(detect(effects(np.zeros((10, 10)), seed=s), "fdr").found.any() for s in range(60))
    assert false <= 8


def test_few_templates_make_a_test_that_finds_less():
    weak = np.full((2, 2), 0.004)
    many, few = (effects(weak, n=64, templates=t) for t in (64, 2))
    assert detect(many, "fdr").score.mean() < detect(few, "fdr").score.mean()


def test_exact_zeros_are_never_found():
    assert not detect(effects(np.zeros((3, 3)), noise=0), "fdr").found.any()
    assert not detect(effects(np.zeros((3, 3)), noise=0), "sd").found.any()


def test_agreement():
    assert jaccard([(0, 1), (2, 3)], [(2, 3)]) == 0.5
    assert jaccard([], []) == 1.0


def test_errors():
    with pytest.raises(ValueError, match="rule='z': use one of 'sd', 'mad', 'fdr'"):
        detect(effects(FEW), "z")
    with pytest.raises(ValueError, match="at least two templates"):
        detect(effects(FEW, templates=1), "fdr")
