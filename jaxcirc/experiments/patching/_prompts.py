"""The prompts of the study: replaced tokens, noise on the same tokens, spans to patch in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from ... import patching, tasks
from ...tasks import Prompts
from ._presets import Sizes


def task_prompts(tokenizer, task: str, n: int, seed: int, **options) -> Prompts:
    """A task's prompts with the span "changed": the tokens that the corruption replaces."""
    return with_changed(tasks.TASKS[task](tokenizer, n=n, seed=seed, **options))


def with_changed(prompts: Prompts) -> Prompts:
    changed = prompts.clean != prompts.corrupt
    return dataclasses.replace(prompts, spans=prompts.spans | {"changed": changed})


def noisy(model, prompts: Prompts, n: int, sizes: Sizes, span: str = "changed") -> Prompts:
    """The first n prompts with noise instead of other tokens."""
    return patching.noised(
        model, prompts.take(range(min(n, len(prompts)))), span, draws=sizes.draws
    )


def fact_prompts(model, tokenizer, n: int, seed: int) -> Prompts:
    """Facts known both ways, each pair used both ways, with the subject's last token and the one
    before it as spans."""
    drawn = tasks.facts(tokenizer, n=n, seed=seed)
    kept, _ = patching.known(model, drawn)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), kept.arrays(), kept.swap().arrays())
    subject = np.asarray(both.span("subject"))
    last = _nth_from_last(subject, 1)
    spans = {"last": last, "before": _nth_from_last(subject, 2)}
    spans = {name: jnp.asarray(span) for name, span in spans.items()}
    return dataclasses.replace(both, spans=both.spans | spans, name="facts")


def _nth_from_last(span: Bool[np.ndarray, "batch pos"], n: int) -> Bool[np.ndarray, "batch pos"]:
    """The n-th token from the end of a span; nothing where it is shorter."""
    behind = np.cumsum(span[:, ::-1], axis=1)[:, ::-1]
    return span & (behind == n)
