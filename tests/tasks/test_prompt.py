"""`Prompts` as a value: taking, padding, swapping, hashing, and what a jitted function sees."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcirc.tasks import (
    End,
    ends,
    from_texts,
    kl,
    less_is_better,
    probability,
    sign,
    with_reference,
)


@pytest.fixture
def prompts(words):
    return from_texts(
        words,
        ["a b c d", "e f", "g h i"],
        ["a x c y", "e x", "g h x"],
        [[" p", " q"], " r", " p"],
        [" s", " t", [" u", " v"]],
        spans=[{"here": "b c"}, {"here": "f"}, {"here": "i"}],
        templates=[3, 3, 5],
    )


def same(left, right):
    return all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def test_the_first_difference_is_a_column_of_the_padded_rows(prompts):
    assert len(prompts) == 3
    assert prompts.first_difference().tolist() == [1, 3, 3]
    alike = eqx.tree_at(lambda p: p.corrupt, prompts, prompts.clean)
    assert alike.first_difference().tolist() == [3, 3, 3]


def test_take(prompts):
    taken = prompts.take([2, 0, 2])
    assert taken.clean.tolist() == [prompts.clean.tolist()[i] for i in (2, 0, 2)]
    assert taken.wrong_weights.tolist() == [[0.5, 0.5], [1, 0], [0.5, 0.5]]
    assert taken.span("here").tolist() == [prompts.span("here").tolist()[i] for i in (2, 0, 2)]
    assert taken.texts == tuple(prompts.texts[i] for i in (2, 0, 2))
    assert taken.name == "texts"
    assert same(prompts.take(slice(1, None)), prompts.take([1, 2]))
    assert same(prompts.take(np.array([False, True, True])), prompts.take([1, 2]))
    assert len(prompts.take([])) == 0
    with pytest.raises(ValueError, match="there are 3 pairs, from 0"):
        prompts.take([3])


def test_take_carries_the_reference(prompts):
    reference = jnp.arange(12.0).reshape(3, 4)
    assert with_reference(prompts, reference).take([1]).reference.tolist() == [[4, 5, 6, 7]]


def test_a_reference_is_filled_in_once(prompts):
    filled = with_reference(prompts, jnp.ones((3, 4)))
    assert filled.reference.tolist() == jnp.ones((3, 4)).tolist()
    assert with_reference(filled, jnp.zeros((3, 4))) is filled


def test_padding_can_be_added_and_taken_away(prompts):
    wide = prompts.padded_to(7)
    assert wide.clean.shape == wide.mask.shape == wide.span("here").shape == (3, 7)
    assert wide.lengths.tolist() == [4, 2, 3]
    assert (wide.first_difference() - prompts.first_difference() == 3).all()
    assert wide.hash() == prompts.hash()
    assert same(wide.padded_to(4), prompts)
    assert prompts.take([1]).padded_to(2).mask.all()
    with pytest.raises(ValueError, match=r"the longest prompt has 4 tokens: padded_to\(4\)"):
        prompts.padded_to(3)


def test_swap_is_its_own_inverse(prompts):
    swapped = prompts.swap()
    assert same((swapped.clean, swapped.corrupt), (prompts.corrupt, prompts.clean))
    assert same((swapped.answers, swapped.wrongs), (prompts.wrongs, prompts.answers))
    assert same((swapped.answer_weights,), (prompts.wrong_weights,))
    assert swapped.texts[1] == ("e x", "e f")
    assert same(swapped.swap(), prompts) and swapped.swap().texts == prompts.texts
    assert with_reference(prompts, jnp.ones((3, 4))).swap().reference is None


def test_the_hash_is_of_the_tokens_and_answers(prompts):
    assert prompts.hash() == prompts.arrays().hash()
    assert prompts.take([0, 1, 2]).hash() == prompts.hash()
    others = [
        prompts.take([1, 0, 2]),
        prompts.swap(),
        eqx.tree_at(lambda p: p.answers, prompts, prompts.answers + 1),
        eqx.tree_at(lambda p: p.templates, prompts, prompts.templates + 1),
    ]
    assert len({p.hash() for p in [prompts, *others]}) == 5


def test_the_hash_does_not_change_between_versions(words):
    prompts = from_texts(words, ["a b"], ["a c"], [" p"], [[" q", " r"]])
    assert prompts.hash().startswith("018c93a6ba7d75d7")


def test_texts_do_not_retrace(prompts):
    traces = []

    @jax.jit
    def length(p):
        traces.append(1)
        return p.mask.sum()

    for rows in ([0, 1], [1, 2], [2, 0]):
        length(prompts.take(rows).arrays())
    assert len(traces) == 1


def test_an_unknown_span_lists_the_known(words, prompts):
    with pytest.raises(ValueError, match="there is no span 'S2': these prompts have 'here'"):
        prompts.span("S2")
    bare = from_texts(words, ["a b"], ["a c"], [" p"], [" q"])
    with pytest.raises(ValueError, match=r"these prompts have none; from_texts\(..., spans="):
        bare.span("S2")


@pytest.mark.usefixtures("untyped")
def test_an_unknown_direction(prompts):
    for wrong in (lambda: sign("both"), lambda: ends(prompts, "both")):
        with pytest.raises(ValueError, match='use direction="noise" or direction="denoise"'):
            wrong()


def test_directions(prompts):
    assert (sign("noise"), sign("denoise")) == (-1, 1)
    assert sign("noise", less_is_better(lambda logits, prompts: logits[:, 0])) == 1
    assert (sign("noise", probability), sign("noise", kl), sign("denoise", kl)) == (-1, 1, -1)
    assert ends(prompts, "noise") == (End(prompts.clean), End(prompts.corrupt))
    assert ends(prompts, "denoise") == (End(prompts.corrupt), End(prompts.clean))
