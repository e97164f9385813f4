"""Training: it descends, a population is its members, units fold away, the dead come back."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fitting import BATCH, NAMES, SITES, SMALL, D, F, data, made, of

from jaxcirc.dictionaries import Config, Fitted, Transcoder, fit
from jaxcirc.dictionaries.train import Arrays, Checkpoints, RanOut, _clock, build
from jaxcirc.dictionaries.train._config import keys, peak, stage
from jaxcirc.dictionaries.train._step import LONG, Hyper, begin, optimiser, step

each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[Fitted, list[float]]]:
    """Every architecture trained once, as a population of two, with its losses by step."""
    found = {}
    for name in NAMES:
        said = []

        def tell(done, total, reports, said=said):
            said.append(np.asarray(reports["activations"].seen.error))

        configs = [of(name, seed=seed, learning_rate=0.01 / (1 + seed)) for seed in (0, 1)]
        found[name] = fit(configs, data(name, 40), tell=tell, every=1), np.asarray(said)
    return found


@each
def test_the_error_falls(trained, name):
    fitted, errors = trained[name]
    assert errors.shape == (40, 2)
    assert (errors[-5:].mean(axis=0) < 0.5 * errors[:2].mean(axis=0)).all()
    (one, two) = fitted.dictionaries["activations"]
    assert np.abs(np.asarray(one.directions - two.directions)).max() > 0.01


@pytest.mark.parametrize("name", ["topk", "batchtopk", "l1_unit", "jumprelu", "crosscoder"])
def test_a_member_is_what_it_is_alone(trained, name):
    members = trained[name][0].dictionaries["activations"]
    alone = fit(of(name, seed=1, learning_rate=0.005), data(name, 40)).only
    for a, b in zip(jax.tree.leaves(members[1]), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * float(np.abs(b).max() + 1e-6))


@pytest.mark.parametrize("name", ["topk", "jumprelu", "crosscoder"])
def test_units_fold_away(trained, name):
    """Trained on x in other units, the dictionary is the same in those: at x / u it says f(x)."""
    fitted, _ = trained[name]
    small = fit(of(name), [0.01 * x for x in data(name, 40)]).only
    x = data(name, 1, seed=5)[0]
    one = fitted.dictionaries["activations"][0]
    explained = [
        1
        - np.square(u * x - d.decode(d.encode(u * x))).sum() / np.square(u * (x - x.mean(0))).sum()
        for d, u in ((one, 1.0), (small, 0.01))
    ]
    np.testing.assert_allclose(*explained, atol=0.02)
    assert explained[0] > 0.4
    bias, own = (getattr(d, "coder", d).b_dec for d in (small, one))
    np.testing.assert_allclose(bias, 0.01 * own, rtol=0.2, atol=0.05)


@pytest.mark.parametrize("name", ["crosscoder", "crosscoder_k"])
def test_every_site_of_a_crosscoder_counts_alike_whatever_its_unit(trained, name):
    """The second site is ten times as large, and is not explained better for it."""
    one, x = trained[name][0].dictionaries["activations"][0], data(name, 1, seed=5)[0]
    left = np.square(x - one.decode(one.encode(x))).sum(axis=(0, 2))
    explained = 1 - left / np.square(x - x.mean(axis=0)).sum(axis=(0, 2))
    assert explained.shape == (SITES,) and (explained > 0.4).all()
    assert abs(explained[0] - explained[1]) < 0.15
    sizes = np.sqrt(np.square(np.concatenate(data(name, 40)[:4])).mean(axis=(0, 2)))
    np.testing.assert_allclose(one.units, 1 / sizes, rtol=1e-4)
    even = fit(of(name), [x / sizes[:, None] for x in data(name, 40)]).only
    np.testing.assert_allclose(one.lengths, even.lengths, rtol=0.02, atol=0.02)


def test_constraints_hold_after_training(trained):
    for name in ("l1_unit", "gated"):
        for member in trained[name][0].dictionaries["activations"]:
            lengths = np.asarray(member.coder.lengths)
            np.testing.assert_allclose(lengths, lengths.mean(), rtol=1e-5)
    levels = [m.threshold for m in trained["jumprelu"][0].dictionaries["activations"]]
    assert all((np.asarray(level) >= 0).all() for level in levels)


def test_frozen_directions_stay_even_under_weight_decay():
    for name in ("adamw", "muon"):
        config = of("topk", frozen=True, optimiser=name, weight_decay=1.0, tokens=BATCH * 3)
        fitted = fit(config, made(4)).only
        before = build(config, keys(config)[0], D).coder.w_dec
        ratio = np.asarray(fitted.coder.w_dec) / np.asarray(before)
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_every_optimiser_descends(name):
    said = []

    def tell(done, total, reports):
        said.append(float(reports["activations"].seen.error[0]))

    config = of("topk", optimiser=name, weight_decay=0.0 if name == "adam" else 0.01)
    fit([config, dataclasses.replace(config, seed=3)], made(40), tell=tell, every=1)
    assert np.mean(said[-5:]) < 0.6 * np.mean(said[:2])


def test_adam_steps_are_those_of_optax_and_muons_as_large():
    slope = jnp.asarray(np.random.default_rng(0).normal(size=(D, F)), jnp.float32)
    params = {"w_enc": slope, "b_enc": slope[0]}
    moves = {}
    for name in ("adam", "muon"):
        way = optimiser(of("topk", optimiser=name))
        moves[name], _ = way.update(params, way.init(params), params)
    expected = optax.adam(1.0)
    reference, _ = expected.update(params, expected.init(params), params)
    np.testing.assert_allclose(moves["adam"]["w_enc"], -reference["w_enc"], rtol=1e-5)
    np.testing.assert_array_equal(np.sign(moves["muon"]["b_enc"]), np.sign(slope[0]))
    size = np.sqrt(np.square(np.asarray(moves["muon"]["w_enc"])).mean())
    assert 0.12 < size < 0.3 and (np.asarray(moves["muon"]["w_enc"]) * slope).sum() > 0


def test_learning_rates_rise_and_fall_as_stated():
    config = of("topk", tokens=BATCH * 100, warmup=0.1, decay=0.2)
    shares = peak(config)
    np.testing.assert_allclose(shares[:10], np.arange(1, 11) / 10)
    assert (shares[9:81] == 1).all()
    np.testing.assert_allclose(shares[80:], np.arange(20, 0, -1) / 20, rtol=1e-6)
    flat = peak(of("topk", warmup=0.0, decay=0.0))
    assert (flat == 1).all()


def test_stages_warm_the_penalty_and_bring_k_and_the_power_down():
    config = of("topk", k_start=9, tokens=BATCH * 100, anneal=0.2)
    penalised = of("l1", tokens=BATCH * 100, sparsity_warmup=0.5)
    dead = jnp.zeros(F, bool)

    def at(step, config=config):
        return stage(config, jnp.asarray(step), jnp.asarray(2.0), dead)

    assert [int(at(i).k) for i in (0, 10, 20, 99)] == [9, 6, 3, 3]
    np.testing.assert_allclose(
        [at(i, penalised).sparsity for i in (0, 25, 50, 99)], [0, 1, 2, 2], rtol=1e-6
    )
    assert at(99).power == 1
    falling = of("p_anneal", tokens=BATCH * 100)
    powers = [at(i, falling).power for i in (0, 50, 100)]
    np.testing.assert_allclose(powers, [1, 0.6, 0.2], rtol=1e-6)


def test_k_is_annealed_in_training():
    said = []

    def tell(done, total, reports):
        said.append(float(reports["activations"].seen.l0[0]))

    fit(of("topk", k_start=8, anneal=0.5), made(40), tell=tell, every=1)
    assert said[0] > 6 and max(said[25:]) <= 3


def test_a_run_resumed_from_its_arrays_is_the_whole_run(tmp_path):
    def stop(step, *_):
        if step == 25:
            raise KeyboardInterrupt

    arrays, whole = made(40), fit(SMALL, made(40)).only
    with pytest.raises(KeyboardInterrupt):
        fit(SMALL, arrays, keep=Checkpoints(tmp_path, every=10), tell=stop, every=1)
    steps = []
    keep = Checkpoints(tmp_path, every=10)
    resumed = fit(SMALL, arrays, keep=keep, tell=lambda i, *_: steps.append(i), every=1).only
    assert steps == list(range(21, 41))
    for one, other in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_go_on_where_they_were():
    arrays = made(12)
    source, whole = Arrays(arrays), [Arrays(arrays).batch() for _ in range(1)]
    for _ in range(5):
        source.batch()
    again = Arrays(arrays)
    again.restore(source.state())
    np.testing.assert_array_equal(again.batch()["activations"][0], arrays[5])
    np.testing.assert_array_equal(whole[0]["activations"][0], arrays[0])
    again.restore({"used": np.asarray(2)})
    np.testing.assert_array_equal(again.batch()["activations"][0], arrays[2])
    spent = Arrays(iter(arrays))
    spent.batch()
    with pytest.raises(ValueError, match="cannot start over"):
        spent.restore({"used": np.asarray(0)})


def test_silence_does_not_turn_over():
    config = of("topk", dead_after=1000)
    state = begin(config, build(config, keys(config)[0], D))
    state = dataclasses.replace(state, silent=jnp.full(F, LONG, jnp.int32))
    x = jnp.zeros((BATCH, D))
    hyper = Hyper(jnp.asarray(0.0), jnp.asarray(0.0))
    after, report = jax.jit(step, static_argnums=0)(config, state, hyper, x, x, jnp.ones(()))
    assert (after.silent == LONG).all() and report.dead == 1


def test_a_feature_is_dead_after_a_tenth_of_the_run():
    assert Config(tokens=200_000).dead_after == 20_000
    assert Config(tokens=10**9).dead_after == 10_000_000
    assert Config(dead_after=300).dead_after == 300 and Config(tokens=3).dead_after == 1


def test_a_source_that_ends_early_leaves_what_there_is():
    with pytest.warns(RanOut, match="ended after 640 of 2,560 tokens") as told:
        found = fit(SMALL, iter(made(10)))
    assert "\n" not in str(told[0].message) and found.tokens == 640
    assert float(found.reports["activations"].explained[0]) > 0


def test_slow_steps_are_told_of_in_between(monkeypatch):
    now, told = [0.0], []

    class Slow(Arrays):
        def batch(self):
            now[0] += 4.0
            return super().batch()

    monkeypatch.setattr(_clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    fit(SMALL, Slow(made(40)), tell=lambda step, *_: told.append(step), every=30)
    # Four batches are read ahead; every third that follows is more than ten seconds later.
    assert told == [1, *range(7, 30, 3), 30, 33, 36, 39, 40]


def test_transcoders_learn_another_width():
    class Pairs:
        places, facts = ("mlp.1",), {"source": "pairs"}
        left = iter(made(60))

        def batch(self):
            x = jnp.asarray(next(self.left))
            return {"mlp.1": (x, 0.01 * (x @ way) - 1.0)}

        def state(self):
            return {}

        def restore(self, state): ...

    way = np.random.default_rng(0).normal(size=(D, 5)).astype(np.float32)
    found = fit(of("topk", skip=True, tokens=BATCH * 60), Pairs()).dictionaries["mlp.1"][0]
    assert isinstance(found, Transcoder) and found.skip is not None
    x = made(1, seed=7)[0]
    y = 0.01 * (x @ way) - 1.0
    left = np.square(found.transcode(x) - y).sum() / np.square(y - y.mean(0)).sum()
    assert left < 0.3


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: fit(SMALL, []), "not one whole batch: give more text"),
        (lambda: fit(SMALL, made(3)), r"at most 3 batches .* takes 40: .*Config\(tokens=192\)"),
        (
            lambda: fit(of("topk", batch=32), made(80)),
            r"batches of 64 tokens, the config counts 32: Config\(batch=64\)",
        ),
        (
            lambda: fit(SMALL, [np.full((BATCH, D), np.nan, np.float32)] * 40),
            "not finite, or all 0",
        ),
        (lambda: fit(SMALL, [np.zeros((BATCH, D), np.float32)] * 40), "not finite, or all 0"),
        (lambda: fit([SMALL, of("l1")], made(4)), "seed, learning_rate and sparsity only"),
        (lambda: fit([of("l1"), of("l1")], made(4)), r"are the same: .* Config\('l1', seed=1\)"),
        (lambda: fit([], made(4)), "no config"),
        (lambda: fit(of("l1", learning_rate=1e20), made(40)), "diverged"),
        (
            lambda: fit(SMALL, made(20) + [np.full((BATCH, D), np.nan, np.float32)] + made(20)),
            "or check the activations",
        ),
        (lambda: fit(SMALL, made(1)[0]), r"\[token d\]"),
        (lambda: fit(SMALL, data("crosscoder", 40)), "go together: this is .*topk.* on 2"),
        (lambda: fit(of("crosscoder"), made(40)), "go together: this is .*crosscoder.* on one"),
        (lambda: fit(of("topk", skip=True), made(40)), "skip=True: only transcoders have it"),
        (lambda: of("crosscoder", resample=2), "resample=2: a crosscoder has none"),
        (lambda: of("crosscoder", k_start=8), "k_start=8: a crosscoder has none.*crosscoder by k"),
        (lambda: of("crosscoder_k", sparsity=2.0), "sparsity=2.0: a crosscoder by k has none"),
        (lambda: of("topk", resample=2), "resample=2: a topk has none, .* use one of l1, l1_unit"),
        (lambda: of("topk", sparsity=2.0), "sparsity=2.0: a topk has none"),
        (lambda: of("l1", k_start=8), "k_start=8: a l1 has none"),
        (lambda: of("l1", power=0.5), "power=0.5: a l1 has none, .*p_anneal"),
        (lambda: of("batchtopk", widths=(4, 8)), r"widths=\(4, 8\): a batchtopk has none"),
        (lambda: of("relu"), "use one of topk"),
        (lambda: of("topk", k=F + 1), "give 1..16"),
        (lambda: of("topk", k_start=2), "give 3"),
        (lambda: of("topk", optimiser="sgd"), "use one of adam"),
        (lambda: of("topk", batch=0), "give a positive number"),
        (lambda: of("topk", warmup=2.0), "warmup=2.0: give a share from 0 to 1"),
        (lambda: of("l1", sparsity=-1.0), "sparsity=-1.0: give 0 or more"),
        (lambda: of("topk", learning_rate=0.0), "learning_rate=0.0: give a positive"),
        (lambda: of("topk", weight_decay=0.1), "weight_decay=0.1: adam has none, .*adamw"),
        (lambda: of("topk", sparsity_warmup=0.5), "sparsity_warmup=0.5: a topk has none"),
        (lambda: of("topk", anneal=0.5), "anneal=0.5: k stays as it is"),
    ],
)
def test_what_cannot_be_trained_is_one_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
