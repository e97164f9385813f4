"""Observables from words, coupling and angles by simulation, regressions, learned directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import close, pairs, tiny

from jaxcirc import attribution
from jaxcirc.models import toy
from jaxcirc.nn import RMSNorm
from jaxcirc.observables import (
    DIRECTIONS,
    Observable,
    _search,
    ablate,
    auc,
    coupling,
    learn,
    propagate,
    regress,
    search_paths,
    steer,
)
from jaxcirc.observables._linear import through_norm
from jaxcirc.taps import Node, Read, Sites, run


class Letters:
    """A token for each letter, and one for each word of the list with its space before it."""

    bos_id, pad_id, adds_bos = None, 0, False
    words = (" she", " he", " nurse", " doctor")

    def encode(self, text: str) -> list[int]:
        if text in self.words:
            return [30 + self.words.index(text)]
        return [ord(letter) % 29 for letter in text]

    def decode(self, ids) -> str:
        return "".join(self.words[i - 30] if i >= 30 else chr(64 + i) for i in ids)


def test_an_observable_is_a_metric():
    asked = Observable.of(Letters(), [" she", " nurse"], " he")
    assert asked.tokens == (30, 32, 31) and asked.weights == (0.5, 0.5, -1.0)
    assert asked.name == "(she, nurse) - he"
    logits = jax.random.normal(jax.random.key(0), (3, 50))
    close(asked(logits), (logits[:, 30] + logits[:, 32]) / 2 - logits[:, 31])
    close(logits @ asked.vector(50), asked(logits))
    weighed = Observable.of(Letters(), {" she": 2.0, " he": -0.5})
    close(weighed(logits), 2 * logits[:, 30] - 0.5 * logits[:, 31])


BAD = {
    "nurses": (["nurses"], (), '"nurses" is 6 tokens'),
    "no space": (["she"], (), r'Observable.of\(tokenizer, " she"\)'),
    "empty": ([""], (), "is 0 tokens"),
    "both sides": ([" she"], [" she"], '" she" is on both sides'),
    "nothing": ([], (), "an observable of no token"),
}


@pytest.mark.parametrize("bad", BAD)
def test_words_that_are_no_token_are_one_line(bad):
    positive, negative, message = BAD[bad]
    with pytest.raises(ValueError, match=message) as error:
        Observable.of(Letters(), positive, negative)
    assert "\n" not in str(error.value) and "Observable.of(" in str(error.value)


def test_coupling_is_what_a_sphere_shows():
    rng = np.random.default_rng(0)
    d, s, k, n = 40, 7.0, 20.0, 40_000
    y1 = rng.normal(size=d)
    y2 = 1.5 * y1 + rng.normal(size=d)
    across = rng.normal(size=(n, d))
    across -= np.outer(across @ y1 / (y1 @ y1), y1)
    radius = np.sqrt(s**2 - k**2 / (y1 @ y1))
    x = k * y1 / (y1 @ y1) + radius * across / np.linalg.norm(across, axis=1, keepdims=True)
    found = coupling(jnp.asarray(y1), jnp.asarray(y2), s=s, k=k)
    seen = x @ y2
    assert abs(seen.mean() - found.mean) < 0.02 * abs(found.mean)
    assert abs(seen.std() - found.sd) < 0.02 * found.sd
    assert found.low < seen.min() and seen.max() < found.high
    rest = y2 - (y1 @ y2) / (y1 @ y1) * y1
    furthest = k * y1 / (y1 @ y1) + radius * rest / np.linalg.norm(rest)
    close(furthest @ y2, found.high, 1e-4)
    back = coupling(jnp.asarray(y2), jnp.asarray(y1), s=s, k=k)
    close(found.coefficient * back.coefficient, found.cosine**2, 1e-5)


def test_the_gradient_of_an_rms_norm_has_the_angle_that_the_point_says():
    """cos(gradient, gain * n) = sqrt(1 - cos^2(gain * n, x)), exactly without an epsilon."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        rng = np.random.default_rng(1)
        gain, n, x = (jnp.asarray(rng.normal(size=24)) for _ in range(3))
        norm = RMSNorm(gain, 0.0)
        slope = through_norm(norm, n, x)

        def cos(a, b):
            return a @ b / jnp.sqrt((a @ a) * (b @ b))

        close(cos(slope, gain * n), jnp.sqrt(1 - cos(gain * n, x) ** 2), 1e-12)


@pytest.mark.slow
def test_the_effects_of_all_paths_add_up_to_the_observable():
    """In a model of attention alone, with what the embedding writes through every path."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model = toy(jax.random.key(1), dtype=jnp.float64, d_mlp=None, n_layers=2, n_heads=2)
        prompts, asked = pairs(pads=1), Observable((3, 4), (1.0, -1.0))
        found = search_paths(model, asked, prompts, width=100, depth=2)
        assert len(found) == (1 + 2) ** 2 - 1
        seen = _search._see(model, *_both(prompts))
        slopes = {(): _search._begin(model, asked, seen)}
        for branch in sorted(found, key=lambda branch: len(branch.path)):
            slopes[branch.path] = _search._grow(
                model, seen, branch.path, slopes[branch.path[1:]]
            ).slopes
        embed = seen.records.attn_in[0]
        total = sum(jnp.einsum("bpd,bpd->b", each, embed) for each in slopes.values())
        logits, _ = run(model, _both(prompts)[0], mask=_both(prompts)[1], logits_at=-1)
        close(total, asked(logits), 1e-10)
        direct = attribution.direct(model, prompts, metric=asked).heads
        swapped = attribution.direct(model, prompts.swap(), metric=asked).heads
        by = {branch.path: branch.each for branch in found}
        close(by[(Node("z", 1, 1),)], (direct - swapped)[:, 1, 1], 1e-10)


def _both(prompts):
    rows = ((prompts.clean, prompts.corrupt), (prompts.mask, prompts.mask))
    return [jnp.concatenate(pair) for pair in rows]


def test_steering_adds_and_ablating_takes_away():
    """The edits by themselves, as a run applies them at the feature's layer and at no other."""
    model = tiny("grouped")
    feature = propagate(model, Observable((3, 4), (1.0, -1.0)), "2.1")
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    where = jnp.arange(10).reshape(2, 5) % 3 == 0
    unit = np.asarray(feature.unit)

    def after(edits, layer=2):
        return np.asarray(edits.resid_pre.at_layer(jnp.asarray(layer))(x)[0])

    some = after(steer(model, feature, 3.0, where=where))
    close(some, x + 3.0 * np.asarray(where)[..., None] * unit, 1e-5)
    none = after(ablate(model, feature))
    close(none, x - np.asarray(x @ unit)[..., None] * unit, 1e-5)
    np.testing.assert_allclose(after(ablate(model, feature, to=2.0)) @ unit, 2, atol=1e-5)
    kept = after(ablate(model, feature, where=where))
    close(kept, np.where(np.asarray(where)[..., None], none, x), 1e-5)
    close(after(ablate(model, feature), layer=1), x, 1e-6)
    close(after(ablate(model, feature, layers=[0, 1]), layer=1), none, 1e-5)


@pytest.mark.slow
def test_an_ablated_run_reads_nothing_along_the_feature():
    model, prompts = tiny("gemma"), pairs()
    feature = propagate(model, Observable((3, 4), (1.0, -1.0)), "2.1")
    edits = ablate(model, feature) | Sites(attn_in=Read())
    seen = run(model, prompts.clean, edits, mask=prompts.mask)[1].attn_in[2]
    np.testing.assert_allclose(seen @ feature.unit, 0, atol=1e-4)
    clean = run(model, prompts.clean, Sites(attn_in=Read()), mask=prompts.mask)[1].attn_in[2]
    assert np.abs(clean @ feature.unit).max() > 0.1


def test_regression_is_the_textbook_line():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = 2.0 * x + 1 + 0.5 * rng.normal(size=200)
    found = regress(x, y, np.arange(200) // 10)
    slope, intercept = np.polyfit(x, y, 1)
    assert found.slope.value == pytest.approx(slope) and found.intercept == pytest.approx(intercept)
    assert found.r2.value == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert found.slope.low < 2 < found.slope.high and found.slope.clusters == 20
    with pytest.raises(ValueError, match="three pairs"):
        regress([1.0], [2.0])


def test_directions_are_learned_from_what_separates():
    rng = np.random.default_rng(0)
    truth = np.eye(12)[3]
    x = rng.normal(size=(80, 12))
    outputs, labels = x @ truth * 3, x @ truth > 0
    for kind in DIRECTIONS[:-1]:
        found = learn(kind, x, outputs, labels)
        assert found @ truth > 0.8 * np.linalg.norm(found), kind
        assert auc(x @ found, labels) > 0.95
    assert learn("random", x, outputs, labels, seed=1).shape == (12,)
    with pytest.raises(ValueError, match="one class"):
        learn("ridge", x, outputs, np.ones(80, bool))
