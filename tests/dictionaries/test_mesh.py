"""Many devices, and several processes, learn what one device learns, and move no code between
them."""

import functools
import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives import collectives
from devices import (
    CONFIGS,
    D_IN,
    FOUR,
    PLACE,
    POPULATIONS,
    REST,
    STEPS,
    TOKENS,
    WIDTH,
    batches,
    stream,
    told,
)
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxcirc._ops import among_largest
from jaxcirc.dictionaries import Config, init_crosscoder
from jaxcirc.dictionaries.train import Checkpoints, fit, make_mesh, shardings
from jaxcirc.dictionaries.train._mesh import specs

HERE = Path(__file__).parent
SAME = {"rtol": 1e-5, "atol": 1e-7}


def begin(*words: str) -> subprocess.Popen:
    path = f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.Popen(
        [sys.executable, str(HERE / "devices.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def answer(running: subprocess.Popen) -> dict:
    said, errors = running.communicate(timeout=600)
    assert running.returncode == 0, errors[-3000:]
    return json.loads(said.splitlines()[-1])


@pytest.fixture(scope="module")
def four() -> dict:
    return answer(begin("four"))


@pytest.fixture(scope="module")
def rest() -> dict:
    return answer(begin("rest"))


def both(what: str, *words: str) -> dict:
    """What each of two processes says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = [begin(what, port, rank, *words) for rank in "01"]
    found, other = (answer(each) for each in running)
    assert found == other
    return found


@functools.cache
def one(name: str) -> list[list[float]]:
    """What is told on one device."""
    return told(CONFIGS[name], batches())


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_eight_devices_learn_what_one_learns(name, four):
    np.testing.assert_allclose(four["told"][name], one(name), **SAME)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_so_with_the_rest(name, rest):
    np.testing.assert_allclose(rest["told"][name], one(name), **SAME)


@pytest.mark.slow
def test_so_where_features_alone_are_shared_out(rest):
    np.testing.assert_allclose(rest["features alone"], one("topk"), **SAME)


@pytest.mark.slow
def test_so_with_populations(rest):
    for found, configs in zip(rest["populations"], POPULATIONS.values(), strict=True):
        np.testing.assert_allclose(found, told(configs, batches()), **SAME)


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(rest):
    assert len(rest["elsewhere"]) == 3
    np.testing.assert_allclose(rest["elsewhere"], one("batchtopk")[-3:], **SAME)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("two")
    return folder, both("process", str(folder), "batchtopk")


@pytest.mark.slow
def test_two_processes_learn_what_one_device_learns(two):
    folder, found = two
    np.testing.assert_allclose(found["told"]["batchtopk"], one("batchtopk"), **SAME)
    np.testing.assert_allclose(found["resumed"], one("batchtopk")[-3:], **SAME)
    assert {path.name for path in (folder / "000000008").glob("source-*")} == {
        "source-0.safetensors",
        "source-1.safetensors",
    }


@pytest.mark.slow
def test_so_with_all_four(tmp_path):
    found = both("process", str(tmp_path), *FOUR)["told"]
    assert set(found) == set(FOUR)
    for name, numbers in found.items():
        np.testing.assert_allclose(numbers, one(name), **SAME)


@pytest.mark.slow
def test_two_processes_read_a_text_together(two):
    """What each says is the same; here the other's half of every batch is put beside its own."""
    found = two[1]["streamed"]
    assert found["part"] == [[0, 2], [1, 2]] and found["part_of_features"] == [[0, 1], [0, 1]]
    assert sorted(sum(found["contexts"], [])) == list(range(60))
    assert found["sink"][0] == found["sink"][1]
    halves = [stream((i, 2)) for i in (0, 1)]
    joined = [
        np.concatenate([np.asarray(half.batch()[PLACE][0]) for half in halves])
        for _ in range(STEPS)
    ]
    expected = told(CONFIGS["batchtopk"], joined)
    assert np.isfinite(found["told"]).all() and joined[0].shape == (TOKENS, D_IN)
    np.testing.assert_allclose(found["told"], expected, **SAME)
    np.testing.assert_allclose(found["resumed"], expected[-3:], **SAME)


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step(tmp_path):
    found = both("stopped", str(tmp_path))
    (step,) = Checkpoints(tmp_path).steps
    assert 5 < step < 300 and (tmp_path / f"{step:09d}" / "manifest.json").exists()
    assert found["why"].startswith(f"stopped after step {step} of 300, which is saved in")


def moves_no_code(program: str) -> None:
    """No collective takes or gives as much as a device's own tokens by its own features."""
    moved = collectives(program)
    assert moved, "gradients must be summed over the data axis"
    for each in moved:
        assert each.largest.elements < TOKENS // 2 * WIDTH // 4, each


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_no_code_is_moved(name, four):
    moves_no_code(four["programs"][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_nor_with_the_rest(name, rest):
    moves_no_code(rest["programs"][name])


@pytest.mark.slow
def test_where_tokens_alone_are_shared_out_rows_are_taken_and_slopes_summed_once(four):
    """Every device decodes the active rows of its own tokens, in loops that move nothing."""
    found = four["tokens alone"]
    np.testing.assert_allclose(found["told"]["topk"], one("topk"), **SAME)
    program, slopes = found["programs"]["topk"], 2 * D_IN * WIDTH + WIDTH + D_IN
    assert " while(" in program
    arrays = [array.elements for each in collectives(program) for array in each.arrays]
    assert slopes < sum(arrays) / 2 < 1.1 * (slopes + WIDTH)  # what comes out went in


@pytest.mark.slow
def test_every_device_holds_its_part(four):
    cut = {name: held for name, (size, held) in four["shares"].items() if size >= WIDTH}
    assert len(cut) == 3 * 3 + 1  # two weights and a bias, their two moments, the counters
    assert set(cut.values()) == {0.25}


@pytest.mark.slow
def test_no_dictionary_is_made_whole(four):
    arrays = re.findall(r"\b[fsu]32\[([\d,]+)\]", four["beginning"])
    sizes = {math.prod(map(int, shape.split(","))) for shape in arrays}
    assert max(sizes) == D_IN * WIDTH // 4


def test_of_equals_the_first_are_kept():
    values = jnp.asarray([[1.0, 2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    kept = among_largest(values, 2)
    np.testing.assert_array_equal(kept[0], [False, True, True, False, False])
    np.testing.assert_array_equal(kept[1], [True, True, False, False, False])
    np.testing.assert_array_equal(among_largest(values, 4, jnp.asarray(1)).sum(axis=1), [1, 1])
    assert not among_largest(values, 2, jnp.asarray(0)).any()


def test_the_largest_are_those_of_top_k():
    values = jnp.asarray(np.random.default_rng(0).integers(0, 6, (50, 20)), jnp.float32)
    for k in (1, 3, 20):
        _, at = lax.top_k(values, k)
        expected = np.zeros(values.shape, bool)
        np.put_along_axis(expected, np.asarray(at), True, axis=1)
        np.testing.assert_array_equal(among_largest(values, k), expected)


def test_features_are_named_by_annotations():
    mesh = make_mesh()
    state = shardings(Config("jumprelu", d_dict=8, k=2), mesh)
    assert state.dictionary.threshold.spec == P(None, "dictionary")
    assert state.dictionary.coder.b_dec.spec == P()
    assert state.optimiser.mu.coder.w_dec.spec == P(None, "dictionary", None)
    assert state.silent.spec == P(None, "dictionary") and state.step.spec == P()
    crosscoder = jax.eval_shape(lambda: init_crosscoder(jax.random.key(0), 2, 8, 8))
    assert specs(crosscoder).w_dec == P("dictionary", None, None)
    assert specs(crosscoder).w_enc == P(None, None, "dictionary")


class TwoByTwo:
    """As far as a check of sizes asks."""

    shape = {"data": 2, "dictionary": 2}


def test_what_does_not_fit_is_refused():
    n = len(jax.devices())
    with pytest.raises(ValueError, match=rf"does not fit on {n} devices: make_mesh\(data={n}, "):
        make_mesh(n, 2)
    with pytest.raises(ValueError, match=r"among 2 devices: Config\(d_dict=66\)"):
        fit(Config("topk", d_dict=65, k=2), [np.ones((4, D_IN))], mesh=TwoByTwo())


def test_a_mesh_of_one_device_is_one_device():
    found = told(CONFIGS["topk"], batches(), mesh=make_mesh())
    np.testing.assert_allclose(found, one("topk"), **SAME)
