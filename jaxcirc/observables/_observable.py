"""`Observable`: a linear functional of the next token's logits.

Dunefsky & Cohan 2023, "Observable Propagation" (arXiv 2312.16291), section 2: n . y for logits y,
such as the logit of " she" minus that of " he". An observable is also a metric, so that patching
and attribution take it as it is. May import `_types`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import TokenizerLike

Words = str | Sequence[str] | Mapping[str, float]
"""One token, several that share the weight equally, or tokens with weights of their own."""

_CALL = 'Observable.of(tokenizer, " she", " he")'


@dataclasses.dataclass(frozen=True)
class Observable:
    r"""What is asked of the logits: $n^\top y = \sum_i w_i \, y_{t_i}$.

    - `tokens`, `weights`: ids and what each counts. `name`: in words.

    >>> pronoun = Observable.of(tokenizer, " she", " he")
    >>> pronoun(logits)                                                 # Float[batch]
    >>> jaxcirc.attribution.direct(model, prompts, metric=pronoun).heads
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    name: str = "observable"

    def __post_init__(self):
        if not self.tokens or len(self.tokens) != len(self.weights):
            raise ValueError(
                f"{len(self.tokens)} tokens and {len(self.weights)} weights: give one weight for"
                " each, Observable((1041, 384), (1.0, -1.0))"
            )

    @classmethod
    def of(
        cls, tokenizer: TokenizerLike, positive: Words, negative: Words = (), name: str = ""
    ) -> "Observable":
        """The mean logit of some tokens minus that of others.

        - `positive`, `negative`: texts of one token each, with their leading spaces; a mapping
          gives weights.

        Raises `ValueError` for a text of no or several tokens, or one on both sides.

        >>> Observable.of(tokenizer, [" nurse", " teacher"], [" programmer", " engineer"])
        """
        sides = _weighed(positive), _weighed(negative)
        if not sides[0] and not sides[1]:
            raise ValueError(f"an observable of no token: {_CALL}")
        both = sorted(set(sides[0]) & set(sides[1]))
        if both:
            raise ValueError(f"{_quoted(both[0])} is on both sides and cancels: {_CALL}")
        signed = [(text, w) for text, w in sides[0].items()]
        signed += [(text, -w) for text, w in sides[1].items()]
        ids = tuple(_one_token(tokenizer, text) for text, _ in signed)
        return cls(ids, tuple(w for _, w in signed), name or _named(*sides))

    def __call__(
        self, logits: Float[Array, "*batch vocab"], prompts: object = None
    ) -> Float[Array, "*batch"]:
        """Its value at logits; `prompts` is there so that it serves as a metric."""
        picked = logits[..., np.asarray(self.tokens)]
        return (picked * jnp.asarray(self.weights, logits.dtype)).sum(axis=-1)

    @property
    def __name__(self) -> str:
        """As metrics have it."""
        return self.name

    def check(self, vocab: int) -> None:
        """Raise `ValueError` for a token that a model of this vocabulary lacks."""
        bad = [token for token in self.tokens if not 0 <= token < vocab]
        if bad:
            raise ValueError(
                f"token id {bad[0]} is unknown: this model has ids 0 to {vocab - 1}; name the token"
                f" instead, {_CALL}"
            )

    def vector(self, vocab: int) -> Float[Array, "vocab"]:
        """n itself."""
        self.check(vocab)
        zero = jnp.zeros(vocab)
        return zero.at[np.asarray(self.tokens)].add(jnp.asarray(self.weights, zero.dtype))

    def direction(
        self, model, logits: Float[Array, "vocab"] | None = None
    ) -> Float[Array, "d_model"]:
        """W_U^T n: the observable in the space of the normed final stream.

        - `logits`: where a soft cap is linearised; without them n acts before the cap.
        """
        return self.slopes(model, logits) @ unembedded(model, self)

    def slopes(self, model, logits: Float[Array, "vocab"] | None = None) -> Float[Array, "token"]:
        """The weights, times the slope of a soft cap at logits if they are given."""
        weights = jnp.asarray(self.weights, model.dtype)
        if logits is None or model.logit_soft_cap is None:
            return weights
        return weights * (1 - (logits[np.asarray(self.tokens)] / model.logit_soft_cap) ** 2)

    def constant(self, model, logits: Float[Array, "vocab"] | None = None) -> Float[Array, ""]:
        """What does not depend on the normed stream: a bias, and what a cap's slope leaves."""
        ids, slopes = np.asarray(self.tokens), self.slopes(model, logits)
        bias, cap = model.unembed_bias, model.logit_soft_cap
        still = jnp.zeros((), model.dtype) if bias is None else slopes @ bias[ids]
        if logits is None or cap is None:
            return still
        return still + self(logits) - slopes @ (cap * jnp.arctanh(logits[ids] / cap))


def unembedded(model, observable: Observable) -> Float[Array, "token d_model"]:
    """The unembedding's rows of an observable's tokens, tied or not."""
    observable.check(model.config.vocab)
    ids = np.asarray(observable.tokens)
    return model.embed[ids] if model.unembed is None else model.unembed[:, ids].T


def _weighed(words: Words) -> dict[str, float]:
    if isinstance(words, Mapping):
        return {text: float(weight) for text, weight in words.items()}
    texts = [words] if isinstance(words, str) else list(dict.fromkeys(words))
    return {text: 1 / len(texts) for text in texts}


def _named(positive: Mapping[str, float], negative: Mapping[str, float]) -> str:
    sides = [", ".join(map(str.strip, side)) for side in (positive, negative) if side]
    return " - ".join(f"({side})" if "," in side else side for side in sides)


def _one_token(tokenizer: TokenizerLike, text: str) -> int:
    ids = tokenizer.encode(text)
    if len(ids) == 1:
        return ids[0]
    spaced = " " + text.strip()
    works = bool(text.strip()) and len(tokenizer.encode(spaced)) == 1
    pieces = ", ".join(_quoted(tokenizer.decode([i])) for i in ids)
    call = f'Observable.of(tokenizer, "{spaced}")' if works else _CALL
    raise ValueError(
        f"{_quoted(text)} is {len(ids)} tokens [{pieces}]: an observable weighs single tokens,"
        f" {call}"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
