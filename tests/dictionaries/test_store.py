"""Activations on disk: written shard by shard, gone on with, and never trusted blindly."""

import json

import numpy as np
import pytest

from jaxcirc.dictionaries.train import Arrays, RanOut, Stored, save_activations

BATCH, D = 6, 3


def batches(n: int = 8, scale: float = 1.0) -> list[np.ndarray]:
    return list((scale * np.random.default_rng(0).normal(size=(n, BATCH, D))).astype(np.float32))


def rows(folder, **options) -> np.ndarray:
    """All that is stored, in the order of its first coordinate."""
    source = Stored(folder, **options)
    found = [np.asarray(source.batch()["activations"][0]) for _ in range(source.batches)]
    with pytest.raises(StopIteration):
        source.batch()
    found = np.concatenate(found)
    return found[np.argsort(found[:, 0])]


class Interrupted(Arrays):
    """Ctrl-C comes with the sixth batch."""

    def batch(self):
        if int(self.state()["used"]) == 5:
            raise KeyboardInterrupt
        return super().batch()


def test_what_is_stored_is_what_was_given_to_half_precision(tmp_path):
    folder = save_activations(Arrays(batches()), tmp_path / "acts", 8 * BATCH, shard=3)
    expected = np.concatenate(batches())
    found = rows(folder)
    np.testing.assert_allclose(found, expected[np.argsort(expected[:, 0])], 1e-3, 1e-4)
    assert np.abs(found).max() > 1


def test_saving_goes_on_where_it_was(tmp_path):
    whole = save_activations(Arrays(batches()), tmp_path / "whole", 8 * BATCH, shard=2)
    told = []
    with pytest.raises(KeyboardInterrupt, match="after 24 of 48 tokens.*the same call goes on"):
        save_activations(Interrupted(batches()), tmp_path / "acts", 8 * BATCH, shard=2)
    for _ in range(2):  # a third time there is nothing left to do
        save_activations(
            Arrays(batches()),
            tmp_path / "acts",
            8 * BATCH,
            shard=2,
            progress=lambda *numbers: told.append(numbers),
        )
    assert told == [(36, 48), (48, 48)]
    one, other = (json.loads((f / "index.json").read_text()) for f in (whole, tmp_path / "acts"))
    assert one == other and len(one["shards"]) == 4


def test_text_that_is_short_is_kept(tmp_path):
    with pytest.warns(RanOut, match="ended after 30 of 48 tokens, saved in") as told:
        folder = save_activations(Arrays(batches(5)), tmp_path / "acts", 8 * BATCH, shard=2)
    assert len(told) == 1 and len(rows(folder)) == 30
    with pytest.raises(ValueError, match="not one whole batch"):
        save_activations(Arrays([]), tmp_path / "none", 1)
    assert not (tmp_path / "none").exists()


def test_a_damaged_shard_is_seen(tmp_path):
    folder = save_activations(Arrays(batches()), tmp_path / "acts", 8 * BATCH, shard=4)
    shard = sorted(folder.glob("shard-*"))[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1  # of a number, so that the file can still be read
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="shard-00001.* is damaged .its sha256") as caught:
        rows(folder)
    assert "\n" not in str(caught.value)


class Other(Arrays):
    def __init__(self, arrays):
        super().__init__(arrays)
        self.facts = {"source": "others"}


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (lambda: Arrays(batches()), {"dtype": "float32"}, "dtype float16, now float32.*remove it"),
        (lambda: Other(batches()), {}, "source.source arrays, now others"),
        (lambda: Arrays(batches()), {"dtype": "int8"}, "use one of float32, float16"),
    ],
)
def test_other_activations_are_not_added(source, options, said, tmp_path):
    folder = save_activations(Arrays(batches(2)), tmp_path / "acts", 2 * BATCH)
    with pytest.raises(ValueError, match=said):
        save_activations(source(), folder, 8 * BATCH, **options)
    assert len(rows(folder)) == 2 * BATCH


@pytest.mark.parametrize(
    ("arrays", "dtype", "said"),
    [
        (batches(scale=1e5), "float16", 'numbers above 65,504: use dtype="float32"'),
        ([np.full((BATCH, D), np.nan, np.float32)], "float16", "not finite"),
        ([np.full((BATCH, D), np.inf, np.float32)], "float32", "not finite"),
        ([np.ones((4, D)), np.ones((5, D))], "float32", "a batch has 5 tokens, others 4"),
    ],
)
def test_numbers_that_cannot_be_kept_are_refused(arrays, dtype, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        save_activations(Arrays(arrays), tmp_path / "acts", 12, dtype=dtype)
    assert not list(tmp_path.rglob("*.safetensors"))
