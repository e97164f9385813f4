"""Strings to arrays: padding, BOS, answer sets, spans, and every error."""

import numpy as np
import pytest

from jaxcirc.tasks import from_texts

PAIR = {
    "clean": ["John met Mary"],
    "corrupt": ["John met Anna"],
    "answer": [" Paris"],
    "wrong": [" Rome"],
}


def test_rows_are_padded_on_the_left(words):
    prompts = from_texts(words, ["a b c d", "e f"], ["a b c x", "e y"], [" p", " q"], [" r", " s"])
    assert prompts.clean.tolist()[0] == words.encode("a b c d")
    assert prompts.clean.tolist()[1] == [0, 0, *words.encode("e f")]
    assert prompts.corrupt.tolist()[1] == [0, 0, *words.encode("e y")]
    assert prompts.mask.tolist() == [[True] * 4, [False, False, True, True]]
    assert prompts.lengths.tolist() == [4, 2]
    assert prompts.texts == (("a b c d", "a b c x"), ("e f", "e y"))
    assert prompts.templates.tolist() == [0, 1]
    assert prompts.reference is None and prompts.spans == {} and prompts.name == "texts"


def test_answers_are_padded_sets_whose_weights_add_up_to_one(words):
    answers = [[" p", " q", " p"], " r"]
    prompts = from_texts(words, ["a b", "a c"], ["a x", "a x"], answers, [" s", [" t", " u"]])
    p, q, r, s, t, u = (words.encode(f" {word}")[0] for word in "pqrstu")
    assert prompts.answers.tolist() == [[p, q], [r, 0]]
    assert prompts.answer_weights.tolist() == [[0.5, 0.5], [1, 0]]
    assert prompts.wrongs.tolist() == [[s, 0], [t, u]]
    assert prompts.wrong_weights.tolist() == [[1, 0], [0.5, 0.5]]


def test_the_leading_space_of_an_answer_is_kept(words):
    prompts = from_texts(words, **PAIR | {"answer": [" Paris"], "wrong": ["Paris"]})
    assert words.decode(prompts.answers[0].tolist()) == " Paris"
    assert words.decode(prompts.wrongs[0].tolist()) == "Paris"


@pytest.mark.parametrize(
    "bos, adds_bos, resolved",
    [
        ("model", True, "always"),
        ("model", False, "never"),
        ("always", False, "always"),
        ("never", True, "never"),
    ],
)
def test_bos(words, bos, adds_bos, resolved):
    words.bos_id, words.adds_bos = 1, adds_bos
    prompts = from_texts(words, **PAIR, bos=bos, spans=[{"subject": "John"}])
    begins = [1] if resolved == "always" else []
    assert prompts.bos == resolved
    assert prompts.clean[0].tolist() == begins + words.encode("John met Mary")
    assert prompts.corrupt[0].tolist() == begins + words.encode("John met Anna")
    assert np.flatnonzero(prompts.span("subject")[0]).tolist() == [len(begins)]


def test_spans_follow_padding_and_bos(words_with_bos):
    prompts = from_texts(
        words_with_bos,
        ["well then John met John", "John met"],
        ["well then John met Anna", "Anna met"],
        [" p", " p"],
        [" q", " q"],
        spans=[
            {"both": "then John", "second": (" John", 2), "range": (1, 3)},
            {"second": "John"},
        ],
    )
    columns = {name: np.argwhere(np.asarray(span)).tolist() for name, span in prompts.spans.items()}
    assert columns["both"] == [[0, 2], [0, 3]]
    assert columns["second"] == [[0, 5], [1, 4]]
    assert columns["range"] == [[0, 2], [0, 3]]


def test_a_span_takes_the_whole_token_that_it_touches(words):
    prompts = from_texts(words, **PAIR, spans=[{"met": "met", "across": "n met M"}])
    assert prompts.span("met")[0].tolist() == [False, True, False]
    assert prompts.span("across")[0].tolist() == [True, True, True]


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"clean": [], "corrupt": [], "answer": [], "wrong": []},
            'the prompt list is empty: give at least one pair, clean=["..."]',
        ),
        ({"clean": "John met Mary"}, "clean is one string: give a list, clean=['John met Mary']"),
        ({"answer": " Paris"}, "answer is one string: give a list, answer=[' Paris']"),
        (
            {"wrong": [" Rome", " Oslo"]},
            "lists of different sizes (clean 1, corrupt 1, answer 1, wrong 2, spans 1, templates 1)"
            ": give one entry for each pair in each",
        ),
        ({"templates": [0, 1]}, "lists of different sizes"),
        ({"spans": []}, "lists of different sizes"),
        ({"clean": [""], "corrupt": [""]}, "pair 0: clean is empty: give it some text"),
        (
            {"corrupt": ["John met Anna-Lena"]},
            'pair 0: clean has 3 tokens ["John", " met", " Mary"] and corrupt 4'
            ' ["John", " met", " Anna", "-Lena"]: replace words by words of as many tokens',
        ),
        (
            {"corrupt": ["John met Mary"]},
            "pair 0: clean and corrupt are identical ('John met Mary'): change a word of corrupt",
        ),
        (
            {"answer": [" Port-Louis"]},
            'pair 0: answer " Port-Louis" is 2 tokens [" Port", "-Louis"]: use a single-token'
            ' answer such as " Mary" with its leading space',
        ),
        ({"wrong": [[" Rome", ""]]}, 'pair 0: wrong "" is 0 tokens []: use a single-token wrong'),
        ({"answer": [[]]}, 'pair 0: no answer is given: give at least one, such as " Mary"'),
        (
            {"wrong": [[" Oslo", " Paris"]]},
            'pair 0: " Paris" is both answer and wrong: use different words',
        ),
        (
            {"bos": "always"},
            "bos='always', but this tokenizer has no BOS token: use bos=\"never\"",
        ),
        (
            {"spans": [{"x": " Oslo"}]},
            "pair 0: span 'x': ' Oslo' does not occur in 'John met Mary': use a part of clean",
        ),
        (
            {"clean": ["a a b"], "corrupt": ["a a c"], "spans": [{"x": "a"}]},
            "pair 0: span 'x': 'a' occurs 2 times: say which, as in ('a', 2)",
        ),
        ({"spans": [{"x": (" Mary", 2)}]}, "occurs 1 times: (' Mary', 1) is the first"),
        (
            {"spans": [{"x": (2, 4)}]},
            "pair 0: span 'x' is tokens 2 to 4: use (start, stop) with 0 <= start < stop <= 3",
        ),
    ],
)
def test_errors_name_the_fix(words, change, message):
    with pytest.raises(ValueError) as caught:
        from_texts(words, **PAIR | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("untyped")
def test_unknown_words(words):
    with pytest.raises(ValueError) as caught:
        from_texts(words, **PAIR, bos="yes")
    assert str(caught.value) == """bos='yes': use bos="model", bos="always" or bos="never\""""
    with pytest.raises(
        ValueError, match=r"""span 'x' is \(' Mary',\): use " Mary", \(" Mary", 2\)"""
    ):
        from_texts(words, **PAIR, spans=[{"x": (" Mary",)}])


def test_the_error_names_the_pair(words):
    with pytest.raises(ValueError, match="^pair 1: clean has 2 tokens"):
        from_texts(words, ["a b", "a b"], ["a c", "a"], [" p"] * 2, [" q"] * 2)


def test_an_answer_that_lacks_only_its_space_is_told_so(words):
    whole = words.encode
    words.encode = lambda text: [0, 1] if text == "Mary" else whole(text)
    with pytest.raises(ValueError, match='use a single-token answer, " Mary" with its'):
        from_texts(words, **PAIR | {"answer": ["Mary"]})


def test_a_character_of_several_tokens_is_covered_whole(smollm2):
    _, tokenizer = smollm2
    clean = "日本語 café 🙂 Zürich end"
    places = {part: part for part in ("本", "語", "café", "🙂", "Zürich", "end")}
    pair = [clean], [clean.replace("end", "start")], [" Mary"], [" John"]
    prompts = from_texts(tokenizer, *pair, spans=[places])
    for part in places:
        span = np.asarray(prompts.span(part)[0])
        assert tokenizer.decode(np.asarray(prompts.clean[0])[span]).strip() == part
