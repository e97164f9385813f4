"""`survey_tasks` and `jaxcirc tasks`: what the real model can do, and tasks that do not apply."""

import pytest

from jaxcirc.cli import main
from jaxcirc.experiments import survey_tasks
from jaxcirc.patching import known
from jaxcirc.tasks import TASKS

EASY = ("ioi", "agreement_simple")


@pytest.fixture(scope="module")
def rows(smollm2):
    names = (*EASY, "greater_than")
    return {row.task: row for row in survey_tasks(*smollm2, names, n=32)}


@pytest.mark.slow
def test_the_model_can_do_the_easy_tasks(rows):
    assert all(rows[name].accuracy.value > 0.9 for name in EASY)
    for name in EASY:
        assert rows[name].clean.value > 1 and rows[name].corrupt.value < -1


@pytest.mark.slow
def test_rows_say_what_was_measured(rows, smollm2):
    model, tokenizer = smollm2
    row = rows["agreement_simple"]
    assert row.n == row.accuracy.n == 32 and row.accuracy.clusters == 6 and row.note == ""
    assert row.known == len(known(model, TASKS["agreement_simple"](tokenizer, n=32))[0])
    assert rows["greater_than"].known is None


def test_a_task_that_does_not_apply_says_why(smollm2):
    model, tokenizer = smollm2
    told = []
    (row,) = survey_tasks(
        model, tokenizer, ["arithmetic"], n=5000, progress=lambda *stage: told.append(stage)
    )
    assert row.n == 0 and row.accuracy is None
    assert row.note.startswith("arithmetic has") and told == [("tasks", 1, 1)]


def test_errors(smollm2):
    with pytest.raises(
        ValueError, match="unknown task 'iou': the tasks are ioi, greater_than, doc"
    ):
        survey_tasks(*smollm2, ["iou"])
    with pytest.raises(ValueError, match="n=0: every task needs at least one pair, n=64"):
        survey_tasks(*smollm2, n=0)


def test_the_command_prints_a_table(capsys):
    main(["tasks", "--only", "agreement_simple", "--n", "8"])
    printed = capsys.readouterr().out
    assert "tasks of smollm2-135m" in printed and "agreement_simple" in printed
    assert "accuracy: best answer above best wrong" in printed


def test_the_command_names_an_unknown_task():
    with pytest.raises(SystemExit, match="jaxcirc: unknown task 'iou'"):
        main(["tasks", "--only", "iou"])
