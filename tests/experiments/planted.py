"""A model in which every token keeps its own direction, and a confound on two of them.

Blocks add nothing, so that the mean residual is the mean embedding: what ablating a feature or
deleting a word must do is known. "she" and "he" lie on one axis, six long; words of the label on
another, one long.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxcirc.circuits.features import Basis
from jaxcirc.dictionaries import L1, Coder
from jaxcirc.experiments.shift import Counts, Split, Splits, Task
from jaxcirc.models import toy

FILL = tuple(f"f{i}" for i in range(10))
LABELS = (("paper", "lecture", "thesis"), ("ward", "pulse", "clinic"))
PRONOUNS = ("he", "she")
VOCAB = ("the", *FILL, *LABELS[0], *LABELS[1], *PRONOUNS, "about", "is", "this", "text")
WIDTH = 8
PRONOUN_AXIS, LABEL_AXIS = 0, 1


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A tokenizer of whole words."""

    bos_id: int | None = None
    pad_id: int = 0
    adds_bos: bool = False

    def encode(self, text: str) -> list[int]:
        words = (word.strip(".,").lower() for word in text.split())
        return [VOCAB.index(word) for word in words if word in VOCAB]

    def decode(self, ids) -> str:
        return "".join(f" {VOCAB[int(i)]}" for i in ids)


def embeddings() -> np.ndarray:
    """The direction of every word; fillers lie in the other axes."""
    rng = np.random.default_rng(0)
    table = np.zeros((len(VOCAB), WIDTH), np.float32)
    table[:, 2:] = rng.normal(size=(len(VOCAB), WIDTH - 2)) * 0.3
    for sign, words, word in zip((-1, 1), LABELS, PRONOUNS, strict=True):
        table[[VOCAB.index(each) for each in words], LABEL_AXIS] = sign
        table[VOCAB.index(word)] = 0
        table[VOCAB.index(word), PRONOUN_AXIS] = 6 * sign
    return table


def planted_model():
    """Two blocks that add nothing."""
    model = toy(jax.random.key(0), n_layers=2, d_model=WIDTH, n_heads=2, vocab=len(VOCAB), d_mlp=8)
    parts = (lambda m: m.embed, lambda m: m.blocks.attn.w_o, lambda m: m.blocks.mlp.w_out)
    values = (jnp.asarray(embeddings()), *(jnp.zeros_like(part(model)) for part in parts[1:]))
    return eqx.tree_at(lambda m: tuple(part(m) for part in parts), model, values)


def axes_dictionary() -> L1:
    """Two features an axis, one for either sign: it rebuilds everything."""
    rows = jnp.concatenate([jnp.eye(WIDTH), -jnp.eye(WIDTH)])
    zeros = jnp.zeros(2 * WIDTH), jnp.zeros(WIDTH)
    return L1(Coder(rows.T, zeros[0], rows, zeros[1], centred=False))


def planted_basis(model) -> Basis:
    return Basis.of(model, {"mlp_out.0": axes_dictionary(), "resid_post.0": axes_dictionary()})


def planted_task(name: str = "planted") -> Task:
    """The label's words and a pronoun among fillers."""

    def draw(seed: int, counts: Counts) -> Splits:
        rng = np.random.default_rng(seed)
        return Splits(*(split(rng, n, kind == "ambiguous") for kind, n in vars(counts).items()))

    def split(rng, n: int, ambiguous: bool) -> Split:
        label = np.arange(n) % 2
        attribute = label if ambiguous else np.arange(n) // 2 % 2
        texts = tuple(text(rng, *map(int, pair)) for pair in zip(label, attribute, strict=True))
        return Split(texts, label, attribute)

    def text(rng, label: int, attribute: int) -> str:
        words = [*rng.choice(FILL, 3), *rng.choice(LABELS[label], 2), PRONOUNS[attribute]]
        return " ".join(["the", *rng.permutation(words)])

    names = ("professor", "nurse"), ("male", "female")
    concepts = (*LABELS[0], *LABELS[1])
    return Task(name, *names, frozenset(PRONOUNS), concepts, draw)
