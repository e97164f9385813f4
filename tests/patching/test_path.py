"""Path patching against plain runs, and what paths must add up to."""

import jax.numpy as jnp
import numpy as np
import pytest
from cases import pairs, slow_at, tiny

from jaxcirc.patching import patch, path, path_linear
from jaxcirc.taps import Node, Read, Set, Sites, run
from jaxcirc.tasks import logit_difference

NAMES = ["grouped", "learned", "parallel", "attention", "gemma"]


def everything_after(model, node):
    """All readers later than a sender."""
    heads = range(model.config.n_heads)
    later = [Node("z", layer, h) for layer in range(node.layer + 1, model.n_layers) for h in heads]
    if "mlp_out" in model.sites():
        own = node.site != "mlp_out" and not model.blocks.parallel
        begin = node.layer + (0 if own else 1)
        later += [Node("mlp_out", layer) for layer in range(begin, model.n_layers)]
    return [*later, Node("logits", 0)]


@pytest.mark.parametrize(
    "name, direction",
    slow_at(
        [*((n, "noise") for n in NAMES), ("learned", "denoise")],
        ("grouped", "noise"),
        ("parallel", "noise"),
    ),
)
def test_all_paths_from_a_sender_together_are_its_activation_patch(name, direction):
    model, prompts = tiny(name), pairs(pads=1)
    for node in [Node("z", 0, 2), Node("mlp_out", 1)]:
        if node.site not in model.sites():
            continue
        found = path(model, prompts, [node], everything_after(model, node), direction=direction)
        exact = patch(model, prompts, [node], direction=direction)
        np.testing.assert_allclose(found.raw, exact.raw, atol=2e-4)
        np.testing.assert_allclose(found.base, exact.base, atol=1e-4)
        np.testing.assert_allclose(found.source, exact.source, atol=1e-4)


def by_hand(model, prompts, sender, receiver, through):
    """Wang et al.'s three runs: everything frozen but the sender; the receiver's query patched."""
    clean, mask = prompts.clean, prompts.mask
    reads = Sites(z=Read(), mlp_out=Read(), q=Read())
    _, here = run(model, clean, reads, mask=mask)
    _, there = run(model, prompts.corrupt, reads, mask=mask)
    sent = np.zeros((model.n_layers, 1, 1, model.config.n_heads, 1), bool)
    sent[sender.layer, ..., sender.index, :] = True
    frozen = Sites(z=Set(jnp.where(sent, there.z, here.z)))
    if through == "nothing":
        frozen |= Sites(mlp_out=Set(here.mlp_out))
    _, moved = run(model, clean, frozen | Sites(q=Read()), mask=mask)
    where = np.zeros((model.n_layers, 1, 1, model.config.n_heads, 1), bool)
    where[receiver.layer, ..., receiver.index, :] = True
    after, _ = run(model, clean, Sites(q=Set(moved.q, where)), mask=mask, logits_at=-1)
    before, _ = run(model, clean, mask=mask, logits_at=-1)
    return logit_difference(after, prompts) - logit_difference(before, prompts)


@pytest.mark.parametrize("through", ["nothing", "mlps"])
@pytest.mark.parametrize("name", slow_at(["grouped", "learned", "gemma"], "grouped"))
def test_one_sender_to_one_query_is_the_classical_procedure(name, through):
    model, prompts = tiny(name), pairs(pads=1)
    senders, receiver = [Node("z", 0, 1), Node("z", 1, 3)], Node("q", 2, 2)
    found = path(model, prompts, senders, [receiver], through=through)
    for i, sender in enumerate(senders):
        expected = by_hand(model, prompts, sender, receiver, through)
        np.testing.assert_allclose(found.raw[:, i], expected, atol=2e-4)
    assert (np.abs(np.asarray(found.raw)) > 1e-3).any()


def test_a_receiver_before_the_sender_hears_nothing():
    model, prompts = tiny("grouped"), pairs()
    found = path(model, prompts, [Node("z", 2, 0)], [Node("z", 1, 0), Node("mlp_out", 1)])
    np.testing.assert_array_equal(found.raw, 0)


def test_senders_together():
    model, prompts = tiny("grouped"), pairs()
    pair = [Node("z", 0, 0), Node("z", 0, 1)]
    after = everything_after(model, Node("z", 0))
    together = path(model, prompts, [pair], after).raw
    np.testing.assert_allclose(together, patch(model, prompts, [pair]).raw, atol=2e-4)


def test_without_norms_the_shortcut_is_exact():
    model, prompts = tiny("attention"), pairs()
    senders, receivers = [Node("z", 0, 1), Node("z", 1, 0)], [Node("q", 2, 1), Node("v", 2, 0)]
    exact = path(model, prompts, senders, receivers).raw
    np.testing.assert_allclose(
        path_linear(model, prompts, senders, receivers).raw, exact, atol=1e-4
    )


@pytest.mark.parametrize("name", ["grouped", "learned"])
def test_the_shortcut_is_linear_in_the_sender_and_differs_from_the_exact(name):
    """To the logits alone: the sum over heads is the heads together; the exact one is not."""
    model, prompts = tiny(name), pairs()
    heads, logits = [Node("z", 1, h) for h in range(4)], [Node("logits", 0)]
    apart, together = (path_linear(model, prompts, s, logits).raw for s in (heads, [heads]))
    np.testing.assert_allclose(apart.sum(axis=1), together[:, 0], atol=1e-4)
    apart, together = (path(model, prompts, s, logits).raw for s in (heads, [heads]))
    assert np.abs(apart.sum(axis=1) - together[:, 0]).max() > 1e-3


def test_errors():
    model, prompts = tiny("grouped"), pairs()
    head, query = Node("z", 0, 0), Node("q", 2, 0)
    cases = {
        "receivers are nodes at 'q', 'k'": ([head], [Node("pattern", 1, 0)]),
        "senders are nodes at 'z', 'attn_out'": ([Node("q", 0, 0)], [query]),
        "'k' has 2 heads": ([head], [Node("k", 2, 2)]),
        "layer out of range, use 0..2": ([Node("z", 3, 0)], [query]),
        "path needs senders and receivers": ([], [query]),
    }
    for message, (senders, receivers) in cases.items():
        with pytest.raises(ValueError, match=message):
            path(model, prompts, senders, receivers)
    with pytest.raises(ValueError, match="through='x': use through=\"nothing\""):
        path(model, prompts, [head], [query], through="x")
