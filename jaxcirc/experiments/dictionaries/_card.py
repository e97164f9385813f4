"""What a dictionary's card says of its place, and of the weights it was trained on.

Cards of other libraries name a site where a transcoder writes (`site_out`) and what TransformerLens
did to the weights (`processing`). May import `models`.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from ...models import LM, process


class OtherWeights(UserWarning):
    """A dictionary is used on other weights than it was trained on."""


_FOLDS = ("fold_ln", "center_writing_weights", "fold_value_biases")
"""What TransformerLens may do to weights that sites see: centring the unembedding, they do not."""

_MODES = {(): "raw", _FOLDS[1:2]: "centred", _FOLDS: "tl"}


def place_of(card: Mapping[str, Any]) -> str | None:
    """Where a dictionary acts, as experiments take it; None where its card does not say.

    >>> place_of({"site": "mlp_normed", "layer": 12, "site_out": "mlp_out"})
    'mlp_normed.12>mlp_out.12'
    """
    if card.get("place"):
        return str(card["place"])
    site, layer, out = (card.get(name) for name in ("site", "layer", "site_out"))
    if site is None or layer is None:
        return None
    return f"{site}.{layer}" + (f">{out}.{card.get('layer_out', layer)}" if out else "")


def processed(model: LM, card: Mapping[str, Any]) -> LM:
    """The model, its weights processed as those were that the dictionary was trained on.

    - `card`: its `processing` is a mode of `models.process` or the arguments of TransformerLens.

    What cannot be done is warned of (`OtherWeights`), and the model returned as it is.

    >>> processed(model, {"processing": {"center_writing_weights": True}}).config.processing
    'centred'
    """
    asked, done = card.get("processing"), model.config.processing
    mode = _mode(asked)
    if not asked or mode == done:
        return model
    try:
        if mode is None:
            raise ValueError("no such processing is here")
        return process(model, mode)
    except ValueError as error:
        if not _changes(model, mode):  # TransformerLens too centres under LayerNorm alone
            return model
        line = f"Trained on weights processed by {asked}, used on {done!r} ones: {error}"
        warnings.warn(line, OtherWeights, stacklevel=2)
        return model


def other_weights(model: LM, card: Mapping[str, Any], fve: float | None = None) -> list[str]:
    """A line, which is also warned with, if the card names other weights than the model's, or the
    same processed otherwise.

    - `fve`: as measured on these weights, if it has been.
    """
    line = is_other(model, card)
    if line is None:
        return []
    told = "`jaxcirc sae eval` measures the FVE there." if fve is None else f"FVE {fve:.3f} there."
    warnings.warn(f"{line} {told}", OtherWeights, stacklevel=3)
    return [f"{line} {told}"]


def is_other(model: LM, card: Mapping[str, Any]) -> str | None:
    """How the card's weights differ from the model's, in words; None where they do not."""
    known, here = str(card.get("sha256") or ""), model.config
    if known and known != here.sha256:
        name = f" ({card['model']})" if card.get("model") else ""
        own = f"{here.sha256[:12]}... ({here.name})"
        return f"Trained on weights {known[:12]}...{name}, used on {own}:"
    asked = card.get("processing")
    if not asked or _mode(asked) == here.processing or not _changes(model, _mode(asked)):
        return None
    done = f"used on {here.processing!r} ones: processed(model, card) makes them alike, if it can."
    return f"Trained on weights processed by {asked}, {done}"


def _changes(model: LM, mode: str | None) -> bool:
    """Whether a mode would change a raw model: without LayerNorm there is nothing to centre."""
    if (mode, model.config.processing) != ("centred", "raw"):
        return True
    try:
        return process(model, "centred") is not model
    except ValueError:
        return False


def _mode(asked: Any) -> str | None:
    if isinstance(asked, Mapping):
        return _MODES.get(tuple(name for name in _FOLDS if asked.get(name)))
    return str(asked)
