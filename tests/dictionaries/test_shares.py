"""Activations shared out among processes: nothing twice, nothing left out, one end for all, and
every part resumed where it was."""

from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from cases import tiny

from jaxcirc.dictionaries.train import (
    Checkpoints,
    Config,
    Contexts,
    Stored,
    Stream,
    fit,
    make_mesh,
    save_activations,
    share_of,
)

PLACE, BATCH, LENGTH = "resid_post.1", 24, 9
ALL = {PLACE: np.inf}


def text(n: int = 24, short: slice = slice(0)) -> Contexts:
    """Random tokens, eight to learn from in a context, three in a short one."""
    tokens = np.random.default_rng(0).integers(1, 50, (n, LENGTH)).astype(np.int32)
    mask = np.ones((n, LENGTH), bool)
    mask[short, 4:] = False
    numbers = np.arange(n)
    return Contexts(tokens, mask, numbers, numbers * 0, ("a.txt",))


def stream(part=(0, 1), contexts: Contexts | None = None, **options) -> Stream:
    options = {"batch": BATCH, "block": 8, "rows": 4, "sink_norm": ALL} | options
    contexts = text() if contexts is None else contexts
    return Stream(tiny("grouped"), contexts, [PLACE], part=part, **options)


def drained(source) -> list[np.ndarray]:
    """All batches that are left."""
    found = []
    while True:
        try:
            found.append(np.asarray(source.batch()[PLACE][0]))
        except StopIteration:
            return found


def same_rows(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """The same tokens in some order: every coordinate has the same values as often."""
    a, b = (np.sort(np.concatenate(rows), axis=0) for rows in (found, expected))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def distinct(batches: list[np.ndarray]) -> int:
    """Tokens that are not near an earlier one."""
    rows = np.concatenate(batches)
    near = np.abs(rows[:, None] - rows).max(axis=-1) < 1e-4
    return int((near.argmax(axis=1) == np.arange(len(rows))).sum())


@pytest.fixture(scope="module")
def whole() -> list[np.ndarray]:
    return drained(stream())


@pytest.fixture(scope="module")
def sink(whole) -> dict[str, float]:
    """A norm that a fifth of the tokens exceed."""
    return {PLACE: float(np.quantile(np.linalg.norm(np.concatenate(whole), axis=1), 0.8))}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acts") / "acts"
    return save_activations(stream(), folder, 24 * 8, shard=3, dtype="float32")


@pytest.mark.parametrize("count", [2, 3])
def test_parts_of_a_stream_are_the_whole(count, whole):
    parts = [stream((i, count)) for i in range(count)]
    read = np.concatenate([part.own.document for part in parts])
    assert sorted(read) == list(range(24))
    batches = [drained(part) for part in parts]
    assert {len(each) for each in batches} == {len(whole)} == {8}
    assert {x.shape for each in batches for x in each} == {(BATCH // count, 16)}
    same_rows(sum(batches, []), whole)


def test_parts_end_together_where_their_texts_do_not():
    contexts = text(short=slice(1, None, 2))  # the second process has 36 tokens, the first 96
    batches = [drained(stream((i, 2), contexts, epochs=2)) for i in (0, 1)]
    assert [len(each) for each in batches] == [6, 6]
    assert distinct(batches[1]) == 36


def test_a_part_short_of_sinks_begins_again(sink):
    assert len(drained(stream(sink_norm=sink))) == 6  # 154 of 192 tokens
    for i in (0, 1):
        found = np.concatenate(drained(stream((i, 2), sink_norm=sink)))
        assert found.shape == (96, 16)
        assert (np.linalg.norm(found, axis=1) <= sink[PLACE]).all()
        own = np.concatenate(drained(stream(contexts=stream((i, 2)).own, batch=8, sink_norm=sink)))
        n = len(own)
        same_rows([found[:n]], [own])
        assert n <= distinct([found]) < n + 8 < 96


def test_all_sinks_end_too():
    source = stream((0, 2), sink_norm={PLACE: 0.0})
    with pytest.raises(StopIteration):
        source.batch()


@pytest.mark.parametrize("part", [(0, 1), (0, 2), (1, 2)])
def test_a_part_goes_on_where_it_was(part, sink):
    source, states, batches = stream(part, sink_norm=sink, epochs=2), [], []
    while True:
        states.append(source.state())
        try:
            batches.append(np.asarray(source.batch()[PLACE][0]))
        except StopIteration:
            break
    for i in (0, 1, len(batches) // 2, len(batches) - 1, len(batches)):
        again = stream(part, sink_norm=sink, epochs=2)
        again.restore(states[i])
        rest = drained(again)
        assert len(rest) == len(batches) - i
        for x, y in zip(rest, batches[i:], strict=True):
            np.testing.assert_array_equal(x, y)


def test_facts_and_sink_norms_are_those_of_the_whole_text():
    parts = [stream((i, 2), sink_norm=None) for i in (0, 1)]
    alone = stream(sink_norm=None)
    assert parts[0].facts == parts[1].facts == alone.facts | {"parts": 2}
    assert alone.facts["parts"] == 1 and alone.part == stream(part=None).part == (0, 1)
    assert parts[1].facts["sink_norm"][PLACE] > 0


def test_a_last_short_block_gives_no_context_twice():
    assert len(drained(stream(contexts=text(5), batch=8))) == 5


def test_a_batch_may_be_larger_than_a_block(whole):
    found = drained(stream(batch=64, block=4))
    assert len(found) == 3
    same_rows(found, whole)


@pytest.mark.parametrize("count", [2, 3])
def test_parts_of_what_is_saved_are_the_whole(count, saved, whole):
    batches = [drained(Stored(saved, part=(i, count))) for i in range(count)]
    assert {len(each) for each in batches} == {8}
    assert {x.shape for each in batches for x in each} == {(BATCH // count, 16)}
    same_rows(sum(batches, []), whole)


def test_a_part_of_what_is_saved_goes_on_where_it_was(saved):
    options = {"epochs": 2, "part": (1, 2)}
    every = drained(Stored(saved, **options))
    assert len(every) == 16
    for i in (0, 4, 8, 15):
        source = Stored(saved, **options)
        for _ in range(i):
            source.batch()
        again = Stored(saved, **options)
        again.restore(source.state())
        np.testing.assert_array_equal(again.batch()[PLACE][0], every[i])


def test_processes_may_save_apart(tmp_path):
    for i in (0, 1):
        source = stream((i, 2))
        folder = save_activations(source, tmp_path / str(i), 96, dtype="float32")
        stored = Stored(folder, part=(0, 1))
        assert stored.size == 12 and stored.facts["contexts"] == 24
        same_rows(drained(stored), drained(stream((i, 2))))


CHANGES = {
    "seed": lambda folder: stream(seed=1),
    "block": lambda folder: stream(block=12),
    "rows": lambda folder: stream(rows=2),
    "stored.seed": lambda folder: Stored(folder, seed=1),
    "stored.shards": lambda folder: Stored(other(folder)),
}


def other(folder: Path) -> Path:
    """The same activations in one shard."""
    return save_activations(stream(), folder.with_name("other"), 24 * 8, dtype="float32")


@pytest.mark.parametrize("name", CHANGES)
def test_another_order_of_tokens_is_another_run(name, saved, tmp_path):
    config = Config("topk", d_dict=8, k=2, batch=BATCH, tokens=BATCH)
    first = Stored(saved) if name.startswith("stored") else stream()
    fit(config, first, keep=Checkpoints(tmp_path))
    with pytest.raises(ValueError, match=rf"holds another run \(source[a-z.]*\.{name} "):
        fit(config, CHANGES[name](saved), keep=Checkpoints(tmp_path))


def test_a_source_says_how_many_batches_it_may_have(saved, sink):
    assert stream().batches == 8 and stream(epochs=2).batches == 16
    assert stream(sink_norm=sink).batches == 8  # an upper bound
    assert stream((0, 2), text(short=slice(1, None, 2)), epochs=2).batches == 6
    assert Stored(saved, epochs=3).batches == 24
    with pytest.raises(ValueError, match=r"at most 8 batches .* takes 9: .*Config\(tokens=192\)"):
        fit(Config("topk", d_dict=8, k=2, batch=BATCH, tokens=BATCH * 9), stream())


def test_what_cannot_be_shared_out_is_one_line(saved):
    for wrong, said in (
        (lambda: stream((2, 2)), r"part=\(2, 2\): give \(index, count\), as in part=\(0, 2\)"),
        (lambda: stream((0, 5)), "24 tokens cannot be shared out among 5 processes: batch=20"),
        (lambda: stream((0, 3), text(2)), "2 contexts cannot be shared out among 3 processes"),
        (lambda: Stored(saved, part=(0, 7)), "batch=21"),
        (
            lambda: fit(Config(k=2, d_dict=8), stream((0, 2)), mesh=make_mesh()),
            r"the mesh takes \(0, 1\) from this process: part=share_of\(mesh\)",
        ),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def mesh_of(*processes: tuple[int, ...]) -> SimpleNamespace:
    """A mesh by the process that holds each of its devices; a row is an equal part of tokens."""
    devices = [[SimpleNamespace(process_index=i) for i in row] for row in processes]
    return SimpleNamespace(devices=np.array(devices, object), axis_names=("data", "dictionary"))


def test_a_part_is_that_of_the_tokens_on_the_devices():
    assert share_of(make_mesh()) == (0, 1) and jax.process_index() == 0
    assert share_of(mesh_of((0, 0), (1, 1))) == (0, 2)
    assert share_of(mesh_of((1, 1), (0, 0))) == (1, 2)
    assert share_of(mesh_of((0, 1), (0, 1))) == (0, 1)  # both hold all tokens
    assert share_of(mesh_of((2, 3), (0, 1), (2, 3), (0, 1))) == (1, 2)
    with pytest.raises(ValueError, match="unequal parts"):
        share_of(mesh_of((0, 0), (0, 1)))
