"""What a dictionary's card says of its place, and of the weights it was trained on.

Cards of other libraries name a site where a transcoder writes (`site_out`) and what TransformerLens
did to the weights (`processing`). May import `models`.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from ...models import LM, process
from ._evaluate import OtherWeights

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
        if (mode, done) == ("centred", "raw"):  # TransformerLens too centres under LayerNorm alone
            return model
        line = f"Trained on weights processed by {asked}, used on {done!r} ones: {error}"
        warnings.warn(line, OtherWeights, stacklevel=2)
        return model


def _mode(asked: Any) -> str | None:
    if isinstance(asked, Mapping):
        return _MODES.get(tuple(name for name in _FOLDS if asked.get(name)))
    return str(asked)
