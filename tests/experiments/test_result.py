"""A result on disk is the result."""

import csv
import dataclasses
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs, tiny

from jaxcirc.experiments import Result, facts_of, load_result
from jaxcirc.tasks import Interval


@pytest.fixture
def result():
    return Result(
        kind="patch",
        task="ioi",
        numbers={"base": Interval(1.5, 1.0, 2.0, 8, 4)},
        table=[{"cell": "0.1", "raw": -0.5}, {"cell": "0.2", "raw": None, "word": 'a, "b"'}],
        arrays={
            "effects": np.arange(6, dtype=np.float32).reshape(2, 3),
            "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
            "one": np.float32([3.0]),
        },
        axes={"effects": ("layer", "head")},
        facts={"model": "toy", "sizes": [1, 2]},
        seconds={"compile": 1.0, "run": 2.0, "total": 3.0},
        notes=["a note"],
    )


@pytest.mark.parametrize("file", ["", "result.json"])
def test_what_is_saved_is_loaded(result, tmp_path, file):
    folder = result.save(tmp_path / "runs" / result.name)
    loaded = load_result(folder / file)
    for field in ("kind", "task", "numbers", "table", "facts", "seconds", "notes", "name"):
        assert getattr(loaded, field) == getattr(result, field), field
    assert {name: tuple(axes) for name, axes in loaded.axes.items()} == result.axes
    assert set(loaded.arrays) == set(result.arrays)
    for name, array in result.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_the_table_is_also_a_spreadsheet(result, tmp_path):
    with (result.save(tmp_path) / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"cell": "0.1", "raw": "-0.5", "word": ""}
    assert rows[1] == {"cell": "0.2", "raw": "", "word": 'a, "b"'}


def test_the_name_is_that_of_the_question_not_of_the_answer(result):
    answered = dataclasses.replace(result, numbers={}, seconds={}, table=[])
    asked = dataclasses.replace(result, facts={"model": "another"})
    assert answered.name == result.name != asked.name
    assert result.name.startswith("ioi-")


def test_saving_again_replaces(result, tmp_path):
    result.save(tmp_path)
    dataclasses.replace(result, notes=["another"]).save(tmp_path)
    assert load_result(tmp_path).notes == ["another"]
    assert sorted(os.listdir(tmp_path)) == ["arrays.safetensors", "result.json", "table.csv"]


def test_a_failed_save_leaves_the_old_result_whole(result, tmp_path):
    result.save(tmp_path)
    bad = dataclasses.replace(result, facts={"model": object()}, arrays={}, notes=["another"])
    with pytest.raises(TypeError):
        bad.save(tmp_path)
    assert load_result(tmp_path).notes == ["a note"]
    assert set(load_result(tmp_path).arrays) == set(result.arrays)
    assert sorted(os.listdir(tmp_path)) == ["arrays.safetensors", "result.json", "table.csv"]


def test_another_schema_is_refused(result, tmp_path):
    file = result.save(tmp_path) / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 0}))
    with pytest.raises(ValueError, match="has schema 0; this version reads 1"):
        load_result(tmp_path)


def test_a_folder_without_a_result_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result.json in .*: load_result takes a folder"):
        load_result(tmp_path / "nothing")


def test_facts_tell_two_models_and_two_sets_of_prompts_apart():
    model, prompts = tiny("grouped"), pairs()
    facts = facts_of(model, prompts, seed=3)
    assert facts["seed"] == 3 and facts["dtype"] == "float32" and facts["prompts"] == 3
    assert facts["prompt_hash"] != facts_of(model, pairs(first=5))["prompt_hash"]
    assert facts_of(tiny("grouped", jnp.bfloat16), prompts)["dtype"] == "bfloat16"
    json.dumps(facts)
