"""Tokenizers of whole words, so that tests read as sentences."""

import pytest
from word_tokens import WordTokenizer


class PairTokenizer(WordTokenizer):
    """The same, but digits go in pairs from the left."""

    pattern = r" ?\d\d|\d|" + WordTokenizer.pattern


@pytest.fixture
def in_pairs():
    return PairTokenizer()


@pytest.fixture
def words():
    return WordTokenizer()


@pytest.fixture
def words_with_bos():
    return WordTokenizer(bos_id=1, adds_bos=True)


@pytest.fixture
def untyped(request):
    """For arguments of a wrong type, which `--beartype` stops before our own message can."""
    if request.config.getoption("--beartype"):
        pytest.skip("the type checker refuses this first")
