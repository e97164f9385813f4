"""Prompts from a file: mixed lengths, reported drops, and errors that name the line."""

import json

import numpy as np
import pytest

from jaxcirc.tasks import Drop, from_jsonl, from_texts

FIRST = {"clean": "a b c", "corrupt": "a x c", "answers": [" p"], "wrongs": [" q"]}
SECOND = {"clean": "a b", "corrupt": "a x", "answers": " p", "wrongs": [" q", " r"]}
UNEQUAL = FIRST | {"corrupt": "a x"}


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lines_become_prompts(words, tmp_path):
    path = write(tmp_path / "mine.jsonl", FIRST, "", SECOND)
    prompts, drops = from_jsonl(words, path)
    made = from_texts(
        words, ["a b c", "a b"], ["a x c", "a x"], [[" p"], " p"], [[" q"], [" q", " r"]]
    )
    assert drops == () and prompts.name == "mine"
    assert prompts.hash() == made.hash()
    assert prompts.mask.tolist() == made.mask.tolist()


def test_unusable_lines_are_dropped_and_reported(words, tmp_path):
    rows = [FIRST, UNEQUAL, FIRST | {"answers": " New-York"}, SECOND, FIRST | {"wrongs": " p"}]
    prompts, drops = from_jsonl(words, write(tmp_path / "x.jsonl", *rows))
    assert len(prompts) == 2
    assert [drop.line for drop in drops] == [2, 3, 5]
    assert drops[0] == Drop(
        2,
        'clean has 3 tokens ["a", " b", " c"] and corrupt 2 ["a", " x"]:'
        " replace words by words of as many tokens",
    )


def test_spans_and_templates(words, tmp_path):
    rows = [
        FIRST | {"spans": {"x": " b", "y": [1, 3]}, "template": "t"},
        SECOND | {"_id": 7},
        FIRST | {"clean": "b b c", "spans": {"x": ["b", 2]}, "template": "t"},
        SECOND | {"template": 4},
    ]
    prompts, _ = from_jsonl(words, write(tmp_path / "x.jsonl", *rows))
    assert prompts.templates.tolist() == [0, 1, 0, 2]
    assert np.argwhere(np.asarray(prompts.span("x"))).tolist() == [[0, 1], [2, 1]]
    assert np.argwhere(np.asarray(prompts.span("y"))).tolist() == [[0, 1], [0, 2]]


def test_bos(words_with_bos, tmp_path):
    path = write(tmp_path / "x.jsonl", FIRST)
    assert from_jsonl(words_with_bos, path).prompts.bos == "always"
    assert from_jsonl(words_with_bos, path, bos="never").prompts.clean.shape == (1, 3)


@pytest.mark.parametrize(
    "row, message",
    [
        ('{"clean": ', "line 2: not JSON (Expecting value): write one object on each line"),
        ("[1]", "line 2: not an object: write"),
        ({"clean": "a b"}, "line 2: no key 'corrupt': every line needs clean, corrupt, answers"),
        (FIRST | {"span": {}}, "line 2: unknown key 'span': use clean, corrupt, answers, wrongs,"),
        (FIRST | {"clean": 3}, "line 2: 'clean' is 3: it must be a string"),
        (FIRST | {"answers": [3]}, "line 2: 'answers' is [3]: it must be a string or a list"),
        (FIRST | {"spans": {"x": 3}}, "it must be an object of places in clean"),
        (FIRST | {"template": [1]}, "it must be a string or a whole number"),
    ],
)
def test_errors_name_the_line(words, tmp_path, row, message):
    with pytest.raises(ValueError) as caught:
        from_jsonl(words, write(tmp_path / "x.jsonl", FIRST, row))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_with_nothing_usable(words, tmp_path):
    with pytest.raises(ValueError, match="holds no usable pair; line 1: clean has 3 tokens"):
        from_jsonl(words, write(tmp_path / "x.jsonl", UNEQUAL))
    with pytest.raises(ValueError, match="holds no usable pair$"):
        from_jsonl(words, write(tmp_path / "x.jsonl"))
    with pytest.raises(FileNotFoundError, match="there is no file .*: give the path"):
        from_jsonl(words, tmp_path / "none.jsonl")
