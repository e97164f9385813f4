"""`jaxcirc lens "The capital of France is"`: what layers and heads say of the next token.
Seconds."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Bos
from ..taps import Read, Sites, Taps, run
from ..tasks import Prompts, bos_ids
from ._result import Row
from .discover import head_lens


@dataclasses.dataclass(frozen=True)
class LensReport:
    """What the lens says of one text: a headline, a row a layer, a row a head."""

    headline: str
    layers: Sequence[Row]
    heads: Sequence[Row]


def lens_text(model, tokenizer, text: str, *, bos: Bos = "model", top: int = 10) -> LensReport:
    """Logit lens by layer, and the heads that write most to the predicted token against the
    runner-up.

    - `text`: whose next token is looked at. `top`: heads to list.

    Raises `ValueError` for an empty text.

    >>> print(lens_text(model, tokenizer, "The capital of France is").headline)
    """
    ids = bos_ids(tokenizer, bos) + tokenizer.encode(text)
    if not ids:
        raise ValueError('an empty text has no next token: jaxcirc lens "The capital of France is"')
    tokens = jnp.asarray([ids])
    with jax.default_matmul_precision("highest"):
        logits, records = run(model, tokens, Sites(resid_post=Read()), logits_at=-1)
        by_layer = model.unembedding(records.resid_post[:, :, -1], Taps(Sites()))[:, 0]
    best, second = np.argsort(-np.asarray(logits[0]))[:2].tolist()
    prompts = _against(tokens, best, second)
    return LensReport(
        _headline(tokenizer, text, logits[0], best, second),
        _layers(tokenizer, by_layer, best),
        _heads(model, tokenizer, prompts, ids, top),
    )


def _against(tokens, right: int, wrong: int) -> Prompts:
    """The text as a prompt with one answer and one wrong."""
    one = jnp.ones((1, 1))
    return Prompts(
        clean=tokens,
        corrupt=tokens,
        mask=jnp.ones(tokens.shape, bool),
        answers=jnp.array([[right]]),
        answer_weights=one,
        wrongs=jnp.array([[wrong]]),
        wrong_weights=one,
        spans={},
        templates=jnp.zeros(1, int),
        name="text",
    )


def _headline(tokenizer, text: str, logits, best: int, second: int) -> str:
    chance = jax.nn.softmax(logits)
    said = [f"{tokenizer.decode([i])!r} ({float(chance[i]):.1%})" for i in (best, second)]
    return f"{text!r} continues with {said[0]}, then {said[1]}"


def _layers(tokenizer, logits, best: int) -> list[Row]:
    chances = jax.nn.softmax(logits, axis=-1)
    ranks = (logits > logits[:, best][:, None]).sum(axis=-1)
    return [
        {
            "layer": layer,
            "says": tokenizer.decode([int(row.argmax())]),
            "probability": float(row.max()),
            f"rank of {tokenizer.decode([best])!r}": int(rank) + 1,
        }
        for layer, (row, rank) in enumerate(
            zip(np.asarray(chances), np.asarray(ranks), strict=True)
        )
    ]


def _heads(model, tokenizer, prompts: Prompts, ids: Sequence[int], top: int) -> list[Row]:
    lens = head_lens(model, prompts)
    _, records = run(model, prompts.clean, Sites(pattern=Read()), layers=model.n_layers)
    last = np.asarray(records.pattern[:, 0, :, -1])
    strongest = np.argsort(-np.abs(lens["direct"]).ravel())[:top]
    rows = []
    for layer, head in zip(*np.unravel_index(strongest, lens["direct"].shape), strict=True):
        source = int(last[layer, head].argmax())
        rows.append(
            {
                "head": f"{layer}.{head}",
                "direct": float(lens["direct"][layer, head]),
                "looks at": f"{tokenizer.decode([ids[source]])!r} at {source}",
                "attention": float(last[layer, head, source]),
                **{
                    name: float(lens[name][layer, head])
                    for name in ("previous", "induction", "copies")
                },
            }
        )
    return rows
