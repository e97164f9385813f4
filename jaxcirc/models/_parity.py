"""Parity: our logits beside stored ones that PyTorch and transformers computed from the same file.

Of real models on texts (`tests/fixtures/make_smollm2.py` makes the stored file), and of a tiny
random model of every family, which is stored too (`tests/fixtures/make_families.py`).
May import `taps` and the rest of `models`.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Array

from ..taps import Read, Sites, Taps, run
from .lm import LM
from .load import load_model
from .tokenizer import Tokenizer

PRECISIONS = ("highest", "default")
GOAL = 1e-3
FAMILY_GOAL = 1e-4
CHUNK = 128
_FOLDER = Path(__file__).parent / "reference"


@dataclasses.dataclass(frozen=True)
class Reference:
    """Stored logits of some texts.

    `texts`, `ids`: by name of the text. `last`: every `step`-th logit of its last position. `some`:
    Float[pos column] logits of every position at the vocabulary entries `columns`. `sha256` is of
    the file that the weights came from, `tensors` the sha256 of some of them, dequantised.
    """

    texts: dict[str, str]
    ids: dict[str, np.ndarray]
    last: dict[str, np.ndarray]
    some: dict[str, np.ndarray]
    columns: np.ndarray
    sha256: str
    tensors: dict[str, str]
    made_by: str
    step: int = 1


@dataclasses.dataclass(frozen=True)
class ParityRow:
    """One text at one matmul precision.

    `same_ids`: our tokenizer gives the stored ids. `absolute`: the largest |ours - stored| over all
    stored logits of the text; `relative`: that over the largest |stored|.
    """

    text: str
    precision: str
    n_tokens: int
    same_ids: bool
    absolute: float
    relative: float


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """All texts at all precisions, and the error that counts as parity."""

    model: str
    made_by: str
    goal: float
    rows: tuple[ParityRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every error is at most `goal` and every text is tokenised as stored."""
        return all(row.same_ids and row.absolute <= self.goal for row in self.rows)

    def worst(self, precision: str) -> float:
        """The largest absolute error at one precision."""
        return max(row.absolute for row in self.rows if row.precision == precision)


def parity(name: str = "smollm2-135m", goal: float = GOAL) -> ParityReport:
    """Compare a model's logits with stored ones, at matmul precision "highest" and "default".

    - `name`: a model of `load_model` that has stored logits. `goal`: the largest error that passes.

    Raises `ValueError` when nothing is stored for the model, or it is of other weights.

    >>> report = parity("smollm2-135m")
    >>> report.passed, report.worst("highest")
    (True, 4.2e-05)
    """
    reference = load_reference(name)
    model, tokenizer = load_model(name)
    rows = [row for p in PRECISIONS for row in compare(model, tokenizer, reference, p)]
    return ParityReport(name, reference.made_by, goal, tuple(rows))


@dataclasses.dataclass(frozen=True)
class FamilyRow:
    """A tiny model of one family: its largest |ours - stored| over the largest |stored|, at each
    matmul precision."""

    family: str
    highest: float
    default: float
    passed: bool


def families() -> list[str]:
    """The families that have a stored model and its logits."""
    return sorted(path.name for path in (_FOLDER / "families").iterdir() if path.is_dir())


def parity_of_families(*names: str, goal: float = FAMILY_GOAL) -> list[FamilyRow]:
    """Compare a tiny random model of every family, or of some, with stored logits of transformers.

    - `names`: of `families()` (default: all). `goal`: the largest relative error that passes, at
      both matmul precisions.

    >>> all(row.passed for row in jaxcirc.models.parity_of_families())
    True
    """
    return [_family_row(family, goal) for family in names or families()]


def family_reference(family: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """(folder, tokens [batch pos], logits [batch pos vocab]) of a family's stored model."""
    folder = _FOLDER / "families" / family
    with safetensors.safe_open(folder / "reference.safetensors", "numpy") as file:
        return folder, file.get_tensor("tokens"), file.get_tensor("logits")


def _family_row(family: str, goal: float) -> FamilyRow:
    folder, tokens, theirs = family_reference(family)
    model, _ = load_model(folder)
    errors = {}
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision):
            ours = np.asarray(run(model, jnp.asarray(tokens))[0])
        errors[precision] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return FamilyRow(family, **errors, passed=max(errors.values()) <= goal)


def compare(
    model: LM, tokenizer: Tokenizer, reference: Reference, precision: str = "highest"
) -> list[ParityRow]:
    """One row per stored text.

    Raises `ValueError` when the model's weights are not those of the reference.
    """
    if model.config.sha256 != reference.sha256:
        raise ValueError(
            f"the stored logits are of a file with sha256 {reference.sha256[:12]}..., this model is"
            f" of {model.config.sha256[:12]}...: load the file that the logits were made from"
        )
    with jax.default_matmul_precision(precision):
        logits = list(_logits(model, list(reference.ids.values()), reference.columns))
    return [
        _row(name, precision, tokenizer, reference, ours)
        for name, ours in zip(reference.ids, logits, strict=True)
    ]


def load_reference(name: str) -> Reference:
    """The stored logits of a model. Raises `ValueError` when there are none or they are damaged."""
    path = _FOLDER / f"{name}.safetensors"
    if not path.is_file():
        known = ", ".join(repr(file.stem) for file in sorted(_FOLDER.glob("*.safetensors")))
        raise ValueError(f"no stored logits for {name!r}: there are some for {known}")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            notes = file.metadata()
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or damaged ({error}): install jaxcirc again"
        ) from None
    texts = json.loads(notes["texts"])
    ids, last, some = ({t: arrays[f"{t}.{k}"] for t in texts} for k in ("ids", "last", "columns"))
    tensors = json.loads(notes["tensors"])
    found = (notes["sha256"], tensors, notes["made_by"], int(notes.get("step", 1)))
    return Reference(texts, ids, last, some, arrays["columns"], *found)


def _logits(
    model: LM, texts: list[np.ndarray], columns: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(Float[vocab] at the last position, Float[pos column]) of each text, in their order; logits
    of a large vocabulary are made for some positions at a time."""
    short = [len(ids) <= CHUNK for ids in texts]
    together = [ids for ids, here in zip(texts, short, strict=True) if here]
    resids = iter(_final(model, together) if together else [])
    for ids, here in zip(texts, short, strict=True):
        resid = next(resids) if here else _final(model, [ids])[0]
        chunks = [_unembed(model, resid[i : i + CHUNK]) for i in range(0, len(resid), CHUNK)]
        yield chunks[-1][-1], np.concatenate([chunk[:, columns] for chunk in chunks])


def _final(model: LM, texts: list[np.ndarray]) -> list[Array]:
    """The stream after the last block, [pos d_model] of each text; one right-padded batch."""
    width = max(map(len, texts))
    tokens = np.stack([np.pad(ids, (0, width - len(ids))) for ids in texts])
    mask = np.arange(width) < np.array([[len(ids)] for ids in texts])
    read = Sites(final_resid=Read())
    _, records = run(model, jnp.asarray(tokens), read, mask=jnp.asarray(mask), logits_at=0)
    return [row[: len(ids)] for row, ids in zip(records.final_resid, texts, strict=True)]


def _unembed(model: LM, resid: Array) -> np.ndarray:
    return np.asarray(model.unembedding(resid[None], Taps(Sites()))[0], np.float32)


def _row(name: str, precision: str, tokenizer: Tokenizer, stored: Reference, ours) -> ParityRow:
    last, some = ours
    theirs = np.concatenate([stored.last[name], stored.some[name].ravel()])
    ours = np.concatenate([last[:: stored.step], some.ravel()])
    absolute = float(np.abs(ours - theirs).max())
    same_ids = tokenizer.encode(stored.texts[name]) == stored.ids[name].tolist()
    n_tokens, scale = len(stored.ids[name]), float(np.abs(theirs).max())
    return ParityRow(name, precision, n_tokens, same_ids, absolute, absolute / scale)
