"""Texts of two classes: from tasks, lists and files, and what they must be."""

import json

import numpy as np
import pytest

from jaxcirc.tasks import (
    Contrast,
    contrast,
    contrast_files,
    contrast_jsonl,
    contrast_texts,
    docstring,
    ioi,
)


def test_texts_of_any_length_and_number(words):
    found = contrast_texts(words, ["a b a", "c d e c"], ["a b", "c d e f", "g"], name="mine")
    assert found.positive.tolist() == [True, True, False, False, False]
    assert found.tokens.shape == (5, 4) and found.name == "mine"
    assert found.rows()[4] == tuple(words.encode("g"))
    assert np.asarray(found.mask)[0].tolist() == [False, True, True, True]
    with_start = contrast_texts(words, ["a b", "c"], ["d", "e"])
    assert with_start.bos == "never"


def test_the_order_of_texts_is_theirs_alone(words):
    found = contrast_texts(words, ["a b", "b a", "c"], ["d", "e f"])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(5)
        again = found.take(order).ordered()
        assert again.rows() == found.ordered().rows() and again.hash() == found.hash()
        assert again.positive.tolist() == [True] * 3 + [False] * 2
    assert found.first(2).positive.tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match=r"there are 2 texts of a class: first\(3\)"):
        found.first(3)


def test_tasks_have_negatives_that_do_not_show_the_behaviour(words):
    found = contrast("ioi", words, n=6)
    prompts = ioi(words, n=6, corruption="abc")
    assert found.rows() == Contrast.of(prompts).rows()
    for (clean, corrupt), io in zip(prompts.texts, prompts.answers, strict=True):
        name = words.decode([int(io[0])]).strip()
        assert name in clean.split() or f"{name}," in clean.split()
        assert name not in corrupt.replace(",", " ").replace(".", " ").split()
    with pytest.raises(ValueError, match="unknown task 'chess'"):
        contrast("chess", words)


def test_documented_arguments_may_match_nothing(words):
    swapped, other = (docstring(words, n=5, corruption=c) for c in ("swap", "random_random"))
    assert np.array_equal(swapped.clean, other.clean)
    for (clean, corrupt), row in zip(other.texts, other.answers, strict=True):
        arguments = corrupt.split("(")[1].split(")")[0].replace(",", "").split()
        documented = [
            line.split()[1].rstrip(":")
            for line in corrupt.split("\n")
            if line.strip()[:1] in "@:" and len(line.split()) > 1
        ]
        assert len(documented) == 2 and not set(documented) & set(arguments)
        assert words.decode([int(row[0])]).strip() not in arguments
        assert not set(arguments) & set(
            clean.split("(")[1].split(")")[0].replace(",", "").split()
        ) - {"self"}
    with pytest.raises(ValueError, match='use "swap" or "random_random"'):
        docstring(words, n=2, corruption="all")


def test_files(words, tmp_path):
    (tmp_path / "p.txt").write_text("a b a\n\nc\\nd c\n")
    (tmp_path / "n.txt").write_text("a b\nd e\n")
    found = contrast_files(words, tmp_path / "p.txt", tmp_path / "n.txt")
    assert len(found) == 4 and found.rows()[1] == tuple(words.encode("c\nd c"))
    rows = [{"text": "a b a", "positive": True}, {"text": "c d c", "positive": True}]
    rows += [{"text": "a b", "positive": False}, {"text": "d e", "positive": False}]
    path = tmp_path / "both.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert contrast_jsonl(words, path).positive.tolist() == [True, True, False, False]
    path.write_text(json.dumps({"text": "a", "label": 1}))
    with pytest.raises(ValueError, match=r'both.jsonl, line 1: write \{"text"'):
        contrast_jsonl(words, path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        contrast_files(words, tmp_path / "no.txt", tmp_path / "n.txt")


@pytest.mark.parametrize(
    "positives, negatives, said",
    [
        (["a"], ["b", "c"], "1 positive and 2 negative texts: give at least two of each"),
        (["a", "b"], [], "2 positive and 0 negative texts"),
        (["a", "b"], ["b", "a"], "positives and negatives are the same texts"),
        (["a", ""], ["b", "c"], "a text is empty"),
        ("ab", ["b", "c"], r"positives is one string: give a list, positives=\['ab'\]"),
    ],
)
def test_what_makes_no_contrast(words, positives, negatives, said):
    with pytest.raises(ValueError, match=said):
        contrast_texts(words, positives, negatives)
