"""Labelled prompts: labels say what the texts say, and a change changes one attribute alone."""

import json

import numpy as np
import pytest

from jaxcirc.tasks.labelled import (
    LABELLED,
    labelled_agreement,
    labelled_ioi,
    labelled_pronouns,
    read_ravel,
)


def ioi(words, split="train", n=24):
    return labelled_ioi(words, n, 0, split, names=12)


def test_labels_of_ioi_say_what_the_prompts_say(words):
    found = ioi(words)
    names = found.maker.values["IO"]
    for i, (text, _) in enumerate(found.prompts.texts):
        io, subject = (names[found.labels[name][i]] for name in ("IO", "S"))
        assert text.count(f" {io}") == 1 and text.count(f" {subject}") == 2
        assert (text.index(io) < text.index(subject)) == (found.labels["Pos"][i] == 0)
        first, second, third = (names[found.labels[k][i]] for k in ("1st", "2nd", "3rd"))
        assert {first, second} == {io, subject} and third == subject
        assert text.index(first) < text.index(second)
        row = np.asarray(found.prompts.clean[i])
        assert (
            words.decode([row[np.asarray(found.prompts.spans["S2"])[i].argmax()]]) == f" {subject}"
        )
        assert found.prompts.spans["end"][i, -1]
    answers = np.asarray(found.prompts.answers[:, 0])
    np.testing.assert_array_equal(found.ids[found.labels["IO"]], answers)


@pytest.mark.parametrize("attribute", ["IO", "S", "Pos"])
def test_a_counterfactual_of_ioi_differs_in_one_attribute(words, attribute):
    found = ioi(words)
    other = found.changed(attribute, seed=3)
    for name in ("IO", "S", "Pos"):
        changed = found.labels[name] != other.labels[name]
        assert changed.all() == (name == attribute) and changed.any() == (name == attribute)
    for mine, its in zip(found.drafts, other.drafts, strict=True):
        assert (mine.place, mine.thing, mine.template) == (its.place, its.thing, its.template)
    again = found.changed(attribute, seed=3)
    assert again.prompts.hash() == other.prompts.hash()


def test_held_out_prompts_share_no_pair_no_object_and_if_asked_no_template(words):
    train, test, templates = (ioi(words, s, 200) for s in ("train", "test", "templates"))

    def of(found, *fields):
        return {tuple(getattr(d, f) for f in fields) for d in found.drafts}

    for other in (test, templates):
        assert not of(train, "io", "subject") & of(other, "io", "subject")
        assert not of(train, "thing") & of(other, "thing")
        assert not of(train, "place") & of(other, "place")
    assert of(train, "template") == of(test, "template")
    assert not of(train, "template") & of(templates, "template")
    assert of(train, "io") == of(test, "io")


def test_agreement_and_pronouns_label_number_and_gender(words):
    number = labelled_agreement(words, 20)
    assert set(number.labels["number"]) == {0, 1}
    flipped = number.changed("number")
    np.testing.assert_array_equal(flipped.labels["number"], 1 - number.labels["number"])
    np.testing.assert_array_equal(flipped.labels["noun"], number.labels["noun"])
    verbs = [words.decode([i]) for i in number.ids]
    assert (" is" in verbs) and number.groups[verbs.index(" is")] == 0
    gender = labelled_pronouns(words, 20)
    other = gender.changed("gender")
    np.testing.assert_array_equal(other.labels["gender"], 1 - gender.labels["gender"])
    half = len(gender.maker.values["name"]) // 2
    np.testing.assert_array_equal(gender.labels["name"] // half, gender.labels["gender"])
    assert number.maker.coded == ("number", "noun"), "nouns have both numbers"
    assert gender.maker.coded == ("gender",), "a name tells the gender"


def test_some_of_them_keep_their_labels_and_what_cannot_be_is_one_line(words):
    found = ioi(words)
    some = found.take([3, 1])
    assert some.drafts == (found.drafts[3], found.drafts[1]) and len(some) == 2
    np.testing.assert_array_equal(some.labels["IO"], found.labels["IO"][[3, 1]])
    with pytest.raises(ValueError, match="use one of 'IO', 'S', 'Pos'"):
        found.changed("2nd")
    with pytest.raises(ValueError, match='use "train"'):
        LABELLED["ioi"](words, 4, 0, "all", names=12)
    with pytest.raises(ValueError, match="too many for this tokenizer"):
        labelled_ioi(words, 4, names=5000)


def test_ravel_asks_one_attribute_of_entities_that_are_the_same_for_all(words, tmp_path):
    entities = {
        name: {"Country": country, "Continent": continent}
        for name, country, continent in (
            ("Lyon", "France", "Europe"),
            ("Osaka", "Japan", "Asia"),
            ("Kyoto", "Japan", "Asia"),
            ("Turin", "Italy", "Europe"),
        )
    }
    asked = {"Country": ["city %s is in"], "Continent": ["the city %s lies in", "%s first"]}
    for kind, content in (("entity_attributes", entities), ("attribute_to_prompts", asked)):
        (tmp_path / f"ravel_city_{kind}.json").write_text(json.dumps(content))
    found = read_ravel(words, tmp_path, attributes=("Country", "Continent"), n=8)
    one, other = found["Country"], found["Continent"]
    np.testing.assert_array_equal(one.labels["Country"], other.labels["Country"])
    for i, (text, _) in enumerate(one.prompts.texts):
        name = text.removeprefix("city ").removesuffix(" is in")
        column = int(np.asarray(one.prompts.spans["entity"])[i].argmax())
        assert words.decode([int(one.prompts.clean[i, column])]).strip() == name
        answer = one.ids["Country"][one.labels["Country"][i]]
        assert words.decode([int(answer)]) == f" {entities[name]['Country']}"
        assert int(one.prompts.answers[i, 0]) == answer
    with pytest.raises(FileNotFoundError, match="unpack RAVEL's data.tgz"):
        read_ravel(words, tmp_path / "none")
