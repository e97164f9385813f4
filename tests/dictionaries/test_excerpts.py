"""Text drawn from all of a corpus, in pieces that are long enough to read."""

from letters import Letters

from jaxcirc.dictionaries.train import Document, excerpts, pack
from jaxcirc.dictionaries.train._text import PIECE


def corpus(n: int, words: int) -> list[Document]:
    """Documents in which every word says where it stands."""
    return [Document(f"{i}.txt", " ".join(f"{i}-{j:04}" for j in range(words))) for i in range(n)]


def test_of_few_long_documents_each_gives_a_piece_in_proportion():
    documents = [*corpus(4, 5000), Document("short.txt", "word " * 1000)]
    whole = sum(len(document.text) for document in documents)
    found = excerpts(documents, characters=whole // 4)
    assert [each.source for each in found] == [each.source for each in documents]
    for each, document in zip(found, documents, strict=True):
        assert each.text in document.text
        assert abs(len(each.text) - len(document.text) / 4) < 12
    assert excerpts(documents, 10 * whole) == documents


def test_of_very_many_some_give_pieces_that_are_no_crumbs():
    documents = corpus(200, 1000)
    found = excerpts(documents, characters=10 * PIECE)
    assert len(found) == 10 and len({each.source for each in found}) == 10
    assert all(abs(len(each.text) - PIECE) < 0.1 * PIECE for each in found)
    other = excerpts(documents, characters=10 * PIECE, seed=1)
    assert {each.source for each in other} != {each.source for each in found}
    assert excerpts(documents, characters=10 * PIECE) == found


def test_short_documents_come_whole():
    documents = corpus(500, 30)
    size = sum(len(document.text) for document in documents) // len(documents)
    found = excerpts(documents, characters=50 * size)
    assert 49 <= len(found) <= 54
    assert all(len(each.text) > 0.7 * size for each in found)


def test_so_many_tokens_to_learn_from_however_short_the_documents():
    for size in (13, 30, 1000):
        documents = [Document("a.txt", "x" * size) for _ in range(60)]
        found = pack(documents, Letters(), length=10, tokens=200)
        learned = found.mask[:, 1:].sum()
        assert 200 <= learned < 200 + 9, size
