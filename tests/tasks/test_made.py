"""What every task promises, on the real tokenizer and on one of whole words."""

import inspect
import re
from functools import partial

import numpy as np
import pytest

from jaxcirc.tasks import ONE_WAY, TASKS, agreement, docstring, facts, induction
from jaxcirc.tasks._agreement import TEMPLATES as STRUCTURES
from jaxcirc.tasks._agreement import lexemes
from jaxcirc.tasks._relations import RELATIONS
from jaxcirc.tasks.words import MEN, PEOPLE, WOMEN

N = 24
CHANGED = {
    "ioi": ("S2",),
    "greater_than": ("digits",),
    "docstring": ("C_def", "D_def"),
    "agreement_simple": ("noun",),
    "agreement_phrase": ("noun",),
    "agreement_within": ("noun",),
    "agreement_across": ("noun",),
    "facts": ("subject",),
    "pronouns": ("name",),
    "arithmetic": ("b",),
    "induction": ("target", "other"),
    "colours": ("asked",),
}
"""The spans in which clean and corrupt may differ."""


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return smollm2[1]


@pytest.fixture(scope="module", params=TASKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def prompts(tokenizer, name):
    return TASKS[name](tokenizer, n=N)


def words_in(prompts, span, tokenizer, tokens=None):
    """The text of a span in every prompt."""
    rows = np.asarray(prompts.clean if tokens is None else tokens)
    flags = np.asarray(prompts.span(span))
    return [
        tokenizer.decode(row[flag].tolist()).strip() for row, flag in zip(rows, flags, strict=True)
    ]


def decoded(ids, weights, tokenizer):
    """The weighted words of every row."""
    rows = zip(np.asarray(ids), np.asarray(weights) > 0, strict=True)
    return [[tokenizer.decode([i]) for i in row[kept].tolist()] for row, kept in rows]


def both(prompts, tokenizer):
    right = decoded(prompts.answers, prompts.answer_weights, tokenizer)
    return right, decoded(prompts.wrongs, prompts.wrong_weights, tokenizer)


def test_every_task_is_here():
    assert set(CHANGED) == set(TASKS) and set(ONE_WAY) <= set(TASKS)


def test_names_and_signatures_agree(prompts, name):
    assert prompts.name == name and len(prompts) == N
    parameters = inspect.signature(TASKS[name]).parameters
    assert list(parameters)[:3] == ["tokenizer", "n", "seed"]
    assert [parameters[key].default for key in ("n", "seed", "bos")] == [64, 0, "model"]


def test_texts_are_what_the_rows_say(prompts, tokenizer):
    for i, (clean, corrupt) in enumerate(prompts.texts):
        mask = np.asarray(prompts.mask[i])
        assert np.asarray(prompts.clean[i])[mask].tolist() == tokenizer.encode(clean)
        assert np.asarray(prompts.corrupt[i])[mask].tolist() == tokenizer.encode(corrupt)
    assert len(set(prompts.texts)) == N


def test_pairs_differ_where_they_should(prompts, name):
    changed = np.asarray(prompts.clean != prompts.corrupt)
    meant = sum(np.asarray(prompts.span(span)) for span in CHANGED[name]) > 0
    assert not (changed & ~meant).any()
    for span in CHANGED[name]:
        assert (changed & np.asarray(prompts.span(span))).any(axis=1).all()


def test_answers_and_wrongs_are_apart_and_weigh_one(prompts, tokenizer):
    for right, wrong in zip(*both(prompts, tokenizer), strict=True):
        assert right and wrong and not set(right) & set(wrong)
    for weights in (prompts.answer_weights, prompts.wrong_weights):
        np.testing.assert_allclose(np.asarray(weights).sum(axis=1), 1, rtol=1e-6)


def test_the_end_is_the_last_token(prompts):
    assert np.asarray(prompts.span("end")).sum(axis=1).tolist() == [1] * N
    assert np.asarray(prompts.span("end"))[:, -1].all()


def test_answers_continue_the_text(prompts, tokenizer):
    for (clean, _), right in zip(prompts.texts, both(prompts, tokenizer)[0], strict=True):
        ids = tokenizer.encode(clean)
        assert all(tokenizer.encode(clean + word) == ids + tokenizer.encode(word) for word in right)


def test_the_seed_decides(prompts, name, tokenizer):
    again, other = TASKS[name](tokenizer, n=N), TASKS[name](tokenizer, n=N, seed=1)
    assert again.hash() == prompts.hash() and again.texts == prompts.texts
    assert other.hash() != prompts.hash()


def test_more_prompts_begin_with_the_fewer(prompts, name, tokenizer):
    if name == "ioi":
        pytest.skip("draws all names before all templates")
    assert TASKS[name](tokenizer, n=N // 2).texts == prompts.texts[: N // 2]


def test_templates_take_turns(prompts, name):
    counts = np.bincount(np.asarray(prompts.templates))
    most = 3 if name == "facts" else 2  # where a tokenizer drops some
    assert (counts > 0).sum() >= 6 and counts.max() - counts.min() <= most


def test_bos_moves_every_span_by_one(prompts, name, tokenizer):
    begun = TASKS[name](tokenizer, n=N, bos="always")
    assert begun.bos == "always" and (begun.lengths == prompts.lengths + 1).all()
    assert begun.texts == prompts.texts
    for span in prompts.spans:
        found = np.asarray(begun.span(span))[:, 1:]
        assert (found == np.asarray(prompts.span(span))).all()


def test_other_tokenizers(in_pairs, name):
    prompts = TASKS[name](in_pairs, n=N)
    assert len(prompts) == N and prompts.mask[:, -1].all()


def test_no_pairs(tokenizer, name):
    with pytest.raises(ValueError, match="n=0: .* needs at least one pair"):
        TASKS[name](tokenizer, n=0)


def test_later_years_are_later(tokenizer):
    prompts = TASKS["greater_than"](tokenizer, n=N)
    for (clean, _), right, wrong in zip(prompts.texts, *both(prompts, tokenizer), strict=True):
        start, century = int(re.search(r"\d{4}", clean)[0]), clean[-2:]
        assert sorted(right + wrong) == list("0123456789")
        assert all(int(f"{century}{digit}0") > start for digit in right)
        assert all(int(f"{century}{digit}9") <= start for digit in wrong)


def test_pairs_of_digits_where_a_tokenizer_keeps_them(in_pairs):
    prompts = TASKS["greater_than"](in_pairs, n=N)
    digits = words_in(prompts, "digits", in_pairs)
    assert words_in(prompts, "digits", in_pairs, prompts.corrupt) == ["01"] * N
    for start, right, wrong in zip(digits, *both(prompts, in_pairs), strict=True):
        assert right == [f"{i:02d}" for i in range(int(start) + 1, 100)]
        assert wrong == [f"{i:02d}" for i in range(int(start) + 1)]


def test_the_third_argument_is_next(tokenizer):
    prompts = docstring(tokenizer, n=N)
    spans = {span: words_in(prompts, span, tokenizer) for span in prompts.spans}
    assert spans["A_def"] == spans["A_doc"] and spans["B_def"] == spans["B_doc"]
    right, wrong = both(prompts, tokenizer)
    assert [word.strip() for (word,) in right] == spans["C_def"]
    assert [words[0].strip() for words in wrong] == spans["D_def"]
    for row, (clean, _) in enumerate(prompts.texts):
        assert all(clean.index(f"{word}, ") for word in (spans["A_def"][row], spans["B_def"][row]))
        assert len(wrong[row]) == 4 and clean.count(spans["C_def"][row]) == 1
    assert words_in(prompts, "C_def", tokenizer, prompts.corrupt) == spans["D_def"]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_verb_agrees(tokenizer, structure):
    prompts = agreement(tokenizer, n=N, structure=structure)
    nouns = words_in(prompts, "noun", tokenizer)
    others = words_in(prompts, "noun", tokenizer, prompts.corrupt)
    plural = [noun in {many for _, many in PEOPLE} for noun in nouns]
    assert abs(sum(plural) - N // 2) <= 1
    assert all({one, other} in map(set, PEOPLE) for one, other in zip(nouns, others, strict=True))
    for many, right, wrong in zip(plural, *both(prompts, tokenizer), strict=True):
        assert all(word.endswith("s") for word in (wrong if many else right))
        assert len(right) == len(wrong) >= 4
    assert set(prompts.spans) == {"noun", "end"} | (
        {"simple": set(), "across": {"other", "verb"}}.get(structure, {"other"})
    )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_splits_share_no_lexeme(tokenizer, structure):
    make = partial(agreement, tokenizer, n=N, structure=structure)
    seen = {}
    for split in ("train", "test"):
        prompts = make(split=split)
        nouns = words_in(prompts, "noun", tokenizer)
        found = [next(i for i, forms in enumerate(PEOPLE) if noun in forms) for noun in nouns]
        assert found == prompts.templates.tolist()
        others = words_in(prompts, "other", tokenizer) if structure != "simple" else []
        seen[split] = {frozenset(forms) for forms in PEOPLE if set(forms) & {*nouns, *others}}
    assert not seen["train"] & seen["test"]
    assert sorted(lexemes("train") + lexemes("test")) == lexemes()


def test_nouns_are_many_and_distinct():
    forms = [form for pair in PEOPLE for form in pair]
    assert len(forms) == len(set(forms)) >= 80


def test_facts_are_facts(tokenizer):
    prompts = facts(tokenizer, n=4 * N)
    known = {name: set(relation.pairs) for name, relation in RELATIONS.items()}
    right, wrong = both(prompts, tokenizer)
    subjects = words_in(prompts, "subject", tokenizer)
    others = words_in(prompts, "subject", tokenizer, prompts.corrupt)
    for one, other, (good,), (bad,) in zip(subjects, others, right, wrong, strict=True):
        assert any({(one, good.strip()), (other, bad.strip())} <= pairs for pairs in known.values())
    capitals = facts(tokenizer, n=N, relation="capital")
    assert set(capitals.templates.tolist()) <= {0, 1, 2}


def test_pronouns_follow_names(tokenizer):
    prompts = TASKS["pronouns"](tokenizer, n=N)
    right, wrong = both(prompts, tokenizer)
    names = words_in(prompts, "name", tokenizer)
    others = words_in(prompts, "name", tokenizer, prompts.corrupt)
    for name, other, good, bad in zip(names, others, right, wrong, strict=True):
        men = good == [" he"]
        assert (good, bad) == (([" he"], [" she"]) if men else ([" she"], [" he"]))
        assert name in (MEN if men else WOMEN) and other in (WOMEN if men else MEN)


def test_sums_are_right(tokenizer):
    prompts = TASKS["arithmetic"](tokenizer, n=N)
    right, wrong = both(prompts, tokenizer)
    a, b = (words_in(prompts, span, tokenizer) for span in "ab")
    other = words_in(prompts, "b", tokenizer, prompts.corrupt)
    for row in range(N):
        assert int(a[row]) + int(b[row]) == int(right[row][0]) < 10
        assert int(a[row]) + int(other[row]) == int(wrong[row][0]) < 10


def test_numbers_stay_behind_their_space_where_they_can(words):
    prompts = TASKS["arithmetic"](words, n=N)
    assert all(not clean.endswith(" ") for clean, _ in prompts.texts)
    assert all(words.decode(row[:1]).startswith(" ") for row in prompts.answers.tolist())


def test_what_followed_before_follows_again(tokenizer):
    prompts = induction(tokenizer, n=N)
    for clean, corrupt, right, wrong in zip(
        prompts.clean.tolist(),
        prompts.corrupt.tolist(),
        prompts.answers[:, 0].tolist(),
        prompts.wrongs[:, 0].tolist(),
        strict=True,
    ):
        assert clean[clean.index(clean[-1]) + 1] == right
        assert corrupt[corrupt.index(corrupt[-1]) + 1] == wrong
        assert sorted(clean) == sorted(corrupt) and clean.count(right) == clean.count(wrong) == 1
    first = words_in(prompts, "first", tokenizer)
    assert first == words_in(prompts, "end", tokenizer)
    assert words_in(prompts, "target", tokenizer) == [
        tokenizer.decode(row[:1]).strip() for row in prompts.answers.tolist()
    ]


def test_the_asked_object_has_the_answer_for_colour(tokenizer):
    prompts = TASKS["colours"](tokenizer, n=N)
    right, wrong = both(prompts, tokenizer)
    spans = {span: words_in(prompts, span, tokenizer) for span in prompts.spans}
    assert spans["object"] == spans["asked"]
    assert spans["colour"] == [word.strip() for (word,) in right]
    others = words_in(prompts, "asked", tokenizer, prompts.corrupt)
    for row, (clean, _) in enumerate(prompts.texts):
        assert f"{spans['colour'][row]} {spans['asked'][row]}" in clean
        assert f"{wrong[row][0].strip()} {others[row]}" in clean and len(wrong[row]) == 2


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "make, message",
    [
        (partial(agreement, structure="far"), "unknown structure 'far': use one of 'simple', 'ph"),
        (partial(agreement, split="dev"), 'split=\'dev\': use split="all", split="train" or'),
        (partial(facts, relation="river"), "unknown relation 'river': use one of 'capital', 'la"),
    ],
)
def test_unknown_words(tokenizer, make, message):
    with pytest.raises(ValueError) as caught:
        make(tokenizer)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_more_pairs_than_there_are(tokenizer):
    with pytest.raises(
        ValueError, match=r"arithmetic has \d+ pairs for this tokenizer, not 5000: n"
    ):
        TASKS["arithmetic"](tokenizer, n=5000)


def test_a_tokenizer_without_answers(words):
    encode = words.encode
    words.encode = lambda text: encode(text) * (2 if text in (" he", " she") else 1)
    with pytest.raises(ValueError) as caught:
        TASKS["pronouns"](words, n=4)
    assert "pronouns has 0 pairs for this tokenizer, not 4: use another tokenizer" in str(
        caught.value
    )
    assert "the last one dropped: answer" in str(caught.value) and "\n" not in str(caught.value)


def test_a_tokenizer_that_writes_years_whole(words):
    with pytest.raises(
        ValueError, match=r"greater_than: this tokenizer writes 1649 as \[' 1649'\]"
    ):
        TASKS["greater_than"](words)
