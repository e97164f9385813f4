"""IOI on the real tokenizer: aligned pairs, named places, balanced orders, one seed one set."""

from collections import Counter

import numpy as np
import pytest

from jaxcirc.tasks import CORRUPTIONS, ioi
from jaxcirc.tasks._ioi import TEMPLATES
from jaxcirc.tasks.words import NAMES, OBJECTS, PLACES

N = 96


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return smollm2[1]


@pytest.fixture(scope="module", params=CORRUPTIONS)
def corruption(request):
    return request.param


@pytest.fixture(scope="module")
def prompts(tokenizer, corruption):
    return ioi(tokenizer, n=N, corruption=corruption)


def at(prompts, tokens, span, tokenizer):
    columns = np.asarray(prompts.span(span)).argmax(axis=1)
    return [tokenizer.decode([row[c]]) for row, c in zip(np.asarray(tokens), columns, strict=True)]


def changed(prompts):
    return np.asarray(prompts.clean != prompts.corrupt)


def test_words_are_many_and_distinct():
    for words, least in ((NAMES, 60), (PLACES, 20), (OBJECTS, 20)):
        assert len(words) == len(set(words)) >= least
    assert len(TEMPLATES) == len(set(TEMPLATES)) >= 10
    assert not any(word[0].lower() in "aeiou" for word in OBJECTS)


def test_spans_are_the_names(prompts, tokenizer):
    assert len(prompts) == N and prompts.name == "ioi"
    io, s1, s2 = (at(prompts, prompts.clean, name, tokenizer) for name in ("IO", "S1", "S2"))
    assert s1 == s2 == [tokenizer.decode(row) for row in prompts.wrongs]
    assert io == [tokenizer.decode(row) for row in prompts.answers]
    assert all(one != other for one, other in zip(io, s1, strict=True))
    assert all(name.startswith(" ") and name.strip() in NAMES for name in io + s1)
    assert all(np.asarray(span).sum(axis=1).tolist() == [1] * N for span in prompts.spans.values())
    assert np.asarray(prompts.span("end"))[:, -1].all()
    after = np.asarray(prompts.span("S1")).argmax(axis=1) + 1
    assert np.asarray(prompts.span("S1+1")).argmax(axis=1).tolist() == after.tolist()
    assert (np.asarray(prompts.span("S2")).argmax(axis=1) > after).all()


def test_texts_are_what_the_rows_say(prompts, tokenizer):
    for i, (clean, corrupt) in enumerate(prompts.texts):
        mask = np.asarray(prompts.mask[i])
        assert tokenizer.decode(np.asarray(prompts.clean[i])[mask]) == clean
        assert tokenizer.decode(np.asarray(prompts.corrupt[i])[mask]) == corrupt


def test_orders_and_templates_are_balanced(prompts):
    templates = prompts.templates.tolist()
    first = np.asarray(prompts.span("IO")).argmax(1) < np.asarray(prompts.span("S1")).argmax(1)
    assert first.sum() == N // 2
    assert set(Counter(zip(templates, first.tolist(), strict=True)).values()) == {
        N // (2 * len(TEMPLATES))
    }


def test_any_beginning_is_balanced_within_one(tokenizer):
    prompts = ioi(tokenizer, n=31)
    first = np.asarray(prompts.span("IO")).argmax(1) < np.asarray(prompts.span("S1")).argmax(1)
    assert all(abs(2 * first[:k].sum() - k) <= 1 for k in range(1, 32))


def test_every_prompt_has_the_same_length_and_a_short_ending(prompts):
    assert prompts.mask.all() and prompts.clean.shape == (N, 15)
    s2 = np.asarray(prompts.span("S2")).argmax(axis=1)
    assert (15 - s2 == 5).all()


def test_the_corruption_changes_what_it_says(prompts, corruption, tokenizer):
    s2 = np.asarray(prompts.span("S2"))
    io, s = (at(prompts, prompts.clean, name, tokenizer) for name in ("IO", "S2"))
    names = {place: at(prompts, prompts.corrupt, place, tokenizer) for place in ("IO", "S1", "S2")}
    if corruption == "abc":
        assert (changed(prompts) == (s2 | prompts.span("IO") | prompts.span("S1"))).all()
        together = list(zip(io, s, *names.values(), strict=True))
        assert all(len(set(five)) == 5 for five in together)
        return
    assert (changed(prompts) == s2).all()
    if corruption == "s2_io":
        assert names["S2"] == io
    else:
        together = list(zip(io, s, names["S2"], strict=True))
        assert all(len(set(three)) == 3 for three in together)


def test_the_seed_decides(prompts, corruption, tokenizer):
    again = ioi(tokenizer, n=N, corruption=corruption)
    assert again.hash() == prompts.hash() and again.texts == prompts.texts
    assert ioi(tokenizer, n=N, seed=1, corruption=corruption).hash() != prompts.hash()


def test_corruptions_share_their_clean_prompts(prompts, tokenizer):
    assert (prompts.clean == ioi(tokenizer, n=N).clean).all()


def test_bos_moves_every_span_by_one(tokenizer):
    bare, with_bos = ioi(tokenizer, n=12), ioi(tokenizer, n=12, bos="always")
    assert (bare.bos, with_bos.bos) == ("never", "always")
    assert (with_bos.clean[:, 0] == tokenizer.bos_id).all()
    assert (with_bos.clean[:, 1:] == bare.clean).all()
    for name, span in bare.spans.items():
        assert (with_bos.span(name)[:, 1:] == span).all()


def test_other_tokenizers_pad(words):
    prompts = ioi(words, n=24)
    assert (prompts.lengths + np.asarray(~prompts.mask).sum(axis=1) == prompts.clean.shape[1]).all()
    assert prompts.mask[:, -1].all()


def test_no_pairs(words):
    with pytest.raises(
        ValueError, match=r"n=0: ioi needs at least one pair, ioi\(tokenizer, n=64\)"
    ):
        ioi(words, n=0)


@pytest.mark.usefixtures("untyped")
def test_unknown_words(words):
    with pytest.raises(ValueError, match="unknown corruption 's1': use one of 's2_io', 'random', "):
        ioi(words, corruption="s1")
    with pytest.raises(ValueError, match='use bos="model"'):
        ioi(words, bos="yes")


def test_a_tokenizer_without_names(words):
    encode = words.encode
    words.encode = lambda text: encode(text) * 2
    with pytest.raises(ValueError, match="needs 5 names of one token, and this tokenizer has 0"):
        ioi(words)
