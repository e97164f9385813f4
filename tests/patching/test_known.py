"""`known` keeps what a model gets right both ways, however the pairs are batched."""

import equinox as eqx
import numpy as np
import pytest

from jaxcirc.patching import known, known_both_ways, last_logits
from jaxcirc.tasks import TASKS, accuracy


@pytest.fixture(scope="module")
def facts(smollm2):
    model, tokenizer = smollm2
    prompts = TASKS["facts"](tokenizer, n=20)
    return model, prompts, last_logits(model, prompts)


def test_the_kept_are_right_both_ways(facts):
    model, prompts, (clean, corrupt) = facts
    kept, dropped = known(model, prompts)
    right = np.asarray(accuracy(clean, prompts)) > 0
    flipped = np.asarray(accuracy(corrupt, prompts.swap())) > 0
    assert 0 < len(kept) and len(kept) + dropped == len(prompts)
    assert kept.hash() == prompts.take(right & flipped).hash()
    assert known(model, kept)[1] == 0


def test_both_ways_is_its_own_mirror(facts):
    _, prompts, (clean, corrupt) = facts
    mirrored = known_both_ways(prompts.swap(), corrupt, clean)
    assert (known_both_ways(prompts, clean, corrupt) == mirrored).all()


def test_batches_do_not_matter(facts):
    model, prompts, whole = facts
    for one, other in zip(whole, last_logits(model, prompts, batch=8), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


def test_nothing_known(facts):
    model, prompts, _ = facts
    silent = eqx.tree_at(lambda m: m.embed, model, model.embed * 0)
    with pytest.raises(ValueError, match="knows none of 20 pairs of 'facts' both ways: use an eas"):
        known(silent, prompts)
