"""Prompts of one length."""

import pytest
from cases import pairs

from jaxcirc.tasks import common_length, of_length


def test_the_common_length_is_taken_and_its_padding_away():
    prompts = pairs(first=4, batch=4, length=8, pads=2)
    assert common_length(prompts) == 8
    short = of_length(prompts, 6)
    assert short.clean.shape == (1, 6) and bool(short.mask.all())
    assert short.clean[0].tolist() == prompts.clean[0, 2:].tolist()
    assert len(of_length(prompts, 8, 2)) == 2


def test_too_few_of_a_length():
    prompts = pairs(first=4, batch=4, length=8, pads=2)
    with pytest.raises(
        ValueError, match=r"1 of 4 prompts have 6 tokens: .* of_length\(prompts, 8\)"
    ):
        of_length(prompts, 6, 2)
