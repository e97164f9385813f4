r"""`EndToEnd`: a dictionary judged by what the model says with it in place, not by its own error.

Braun et al. 2024 (arXiv 2405.12241), section 2. The activation at one site is replaced by its
reconstruction, the error dropped; with y the model's own logits, $\hat y$ those then found, and
$a^{(k)}$ the residual stream on entry to layer k:

$$L_{e2e} = D(y \,\|\, \hat y) + S, \quad
  L_{e2e+ds} = L_{e2e} + \frac{\beta}{n} \sum_{k > l} \frac{1}{d} \|\hat a^{(k)} - a^{(k)}\|^2$$

with n later layers (one on whose entry stands the reconstruction itself is not among them) and S
all of the dictionary's own loss but its reconstruction error (the paper: an L1 penalty). As in the
authors' code, the squared error is a mean over the d coordinates, and what leaves the last layer is
not compared. May import `taps`, `_config`, `_step`, and the architectures.
"""

import dataclasses
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._types import Record
from ...taps import AbstractEdit, ByLayer, Read, Sites, run
from .._coded import Coded
from .._trained import Seen, Stage, wide
from ..matryoshka import Matryoshka
from ._config import Config, build, keys, peak
from ._step import Hyper, Report, State, begin, descend


class Reconstructed(AbstractEdit):
    """An activation replaced by its reconstruction, where `counts`; others, and sinks, pass.

    - `unit`: what activations are divided by on the way in. `sink_norm`: tokens of a larger norm
      are sinks. Records the dictionary's own loss on the tokens replaced, and what it saw.
    """

    dictionary: Coded
    at: Stage
    counts: Bool[Array, "batch pos"]
    unit: Float[Array, ""]
    sink_norm: Float[Array, ""]

    def __call__(self, x: Float[Array, "batch pos d_in"]) -> tuple[Array, Record]:
        counts = _replaced(x, self.counts, self.sink_norm).reshape(-1)
        flat = x.reshape(-1, x.shape[-1]) / self.unit
        # Tokens that count come first; then they come again, in place of those that do not.
        order = jnp.argsort(~counts, stable=True)
        rows = flat[order[jnp.arange(len(flat)) % jnp.maximum(counts.sum(), 1)]]
        found = self.dictionary.decode(self.dictionary.trained(rows, self.at))
        back = found[jnp.maximum(jnp.cumsum(counts) - 1, 0)]
        new = jnp.where(counts[:, None], back, flat) * self.unit
        return new.reshape(x.shape).astype(x.dtype), self.dictionary.loss(rows, rows, self.at)


def _replaced(
    x: Float[Array, "*batch d_in"], counts: Bool[Array, "*batch"], sink_norm: Float[Array, ""]
) -> Bool[Array, "*batch"]:
    """Tokens that count, but for sinks."""
    return counts & (jnp.linalg.norm(wide(x), axis=-1) <= sink_norm)


class Said(eqx.Module):
    """What the spliced model says: the divergence, in nats a token, and the mean squared error of
    the residual stream behind the site."""

    kl: Float[Array, ""]
    downstream: Float[Array, ""]


class EndToEnd(eqx.Module):
    """The loss of a dictionary at one site of a model.

    - `downstream`: beta; 0 for e2e alone. `unit`: what activations are divided by first.
      `sink_norm`: tokens of a larger norm pass unchanged.

    >>> EndToEnd(model, "resid_post", 12)(dictionary, stage, tokens, mask, counts)
    """

    model: Any
    site: str = eqx.field(static=True)
    layer: int = eqx.field(static=True)
    downstream: float = eqx.field(static=True, default=0.0)
    unit: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.ones(()))
    sink_norm: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.full((), jnp.inf))

    def __check_init__(self):
        if not 0 <= self.layer < self.model.n_layers:
            raise ValueError(f"layer={self.layer}: give 0..{self.model.n_layers - 1}")
        if self.downstream and self.first >= self.model.n_layers:
            raise ValueError(f"no layer lies behind {self.site}.{self.layer}: give downstream=0")

    def __call__(
        self,
        dictionary: Coded,
        at: Stage,
        tokens: Int[Array, "batch pos"],
        mask: Bool[Array, "batch pos"],
        counts: Bool[Array, "batch pos"],
    ) -> tuple[Float[Array, ""], tuple[Seen, Said]]:
        """The loss, and what the dictionary and the model saw.

        - `mask`: False at padding, where nothing is asked. `counts`: tokens that the dictionary
          replaces, unless they are sinks; the first token of all had better pass.
        """
        base, before = run(self.model, tokens, self._reads(), mask=mask)
        edit = Reconstructed(dictionary, at, counts, self.unit, self.sink_norm)
        here = {self.site: ByLayer((edit,), (self.layer,))}
        logits, after = run(self.model, tokens, self._reads(**here), mask=mask)
        own, seen = getattr(after, self.site)[self.layer]
        said = Said(_divergence(base, logits, mask), self._behind(before, after, mask))
        rest = own - seen.error
        return said.kl + self.downstream * said.downstream + rest, (seen, said)

    @property
    def first(self) -> int:
        """The first layer on whose entry the streams are compared."""
        return self.layer + (2 if self.site == "resid_post" else 1)

    def _reads(self, **edits: AbstractEdit) -> Sites:
        """These edits, and what is compared further on."""
        return Sites(**edits, **({self._watched: Read()} if self.downstream else {}))

    @property
    def _watched(self) -> str:
        """Where the residual stream is read: not at the dictionary's own site."""
        return "resid_post" if self.site == "resid_pre" else "resid_pre"

    def _behind(self, before: Sites, after: Sites, mask: Array) -> Float[Array, ""]:
        if not self.downstream:
            return jnp.zeros(())
        error = jnp.square(self._entries(after) - self._entries(before)).mean(axis=(0, -1))
        return jnp.where(mask, error, 0.0).sum() / mask.sum()

    def _entries(self, records: Sites) -> Float[Array, "layer batch pos d_model"]:
        """The residual stream on entry to the later layers: what leaves the layers before them."""
        if self._watched == "resid_pre":
            return wide(records.resid_pre[self.first :])
        return wide(records.resid_post[self.first - 1 : -1])


def _divergence(base: Array, logits: Array, mask: Array) -> Float[Array, ""]:
    """D(base || logits) in nats, mean over the tokens of the mask."""
    old, new = (jax.nn.log_softmax(wide(side)) for side in (base, logits))
    each = (jnp.exp(old) * (old - new)).sum(axis=-1)
    return jnp.where(mask, each, 0.0).sum() / mask.sum()


@partial(jax.jit, static_argnames=("config",))
def end_to_end_step(
    config: Config,
    loss: EndToEnd,
    state: State,
    hyper: Hyper,
    tokens: Int[Array, "batch pos"],
    mask: Bool[Array, "batch pos"],
    counts: Bool[Array, "batch pos"],
    share: Float[Array, ""],
) -> tuple[State, Report, Said]:
    """One step of training by the model's own words, with the optimiser of `step`."""

    def objective(dictionary, at: Stage) -> tuple[Array, tuple[Seen, Said]]:
        return loss(dictionary, at, tokens, mask, counts)

    dead = (state.silent >= config.life).mean(dtype=jnp.float32)
    state, value, (seen, said) = descend(config, state, hyper, objective, tokens.size, share)
    return state, Report(value, seen, jnp.full((), jnp.nan), dead), said


@dataclasses.dataclass(frozen=True)
class Heard:
    """What `fit_end_to_end` returns: the dictionary in the model's own units, the last report, and
    the divergence at every step, in nats."""

    dictionary: Coded
    report: Report
    kl: list[float]


def fit_end_to_end(
    config: Config,
    model: Any,
    texts: Iterable[tuple[Int[Array, "batch pos"], Bool[Array, "batch pos"]]],
    site: str,
    layer: int,
    *,
    downstream: float = 0.0,
    start: Coded | None = None,
    sinks: int = 1,
    sink_norm: float = math.inf,
) -> Heard:
    """Train a dictionary by what the model says with it in place.

    All in one call: it keeps no checkpoints, and a run that is interrupted begins anew.

    - `texts`: (tokens, mask) of every step, for as many steps as they last, `config.steps` at most.
      `downstream`: beta. `start`: a dictionary to go on from, in the model's units (2503.17272: a
      short end of training suffices); default a fresh one. `sinks`: tokens at the beginning of
      every text that pass unchanged; so do tokens of a norm above `sink_norm` (a card's, as
      `Stream` finds it).

    Returns `Heard`. Raises `ValueError` for an architecture without this loss, or without texts.

    >>> fit_end_to_end(Config("topk", k=32, tokens=10**6), model, texts, "resid_post", 12).kl[-1]
    """
    state, loss, kl, report = None, None, [], None
    for share, (tokens, mask) in zip(peak(config), texts, strict=False):
        counts = mask & (jnp.cumsum(mask, axis=1) > sinks)
        if state is None or loss is None:
            norm = jnp.full((), sink_norm)
            x = _activations(model, tokens, mask, counts, site, layer, norm)
            unit = jnp.sqrt(jnp.mean(jnp.square(x)))
            loss = EndToEnd(model, site, layer, downstream, unit, norm)
            state = begin(config, _first(config, start, x / unit, unit))
        hyper = Hyper(jnp.asarray(config.rate), jnp.asarray(config.sparsity))
        state, report, said = end_to_end_step(
            config, loss, state, hyper, tokens, mask, counts, jnp.asarray(share)
        )
        kl.append(float(said.kl))
    if state is None or loss is None or report is None:
        raise ValueError("no texts: give (tokens, mask) pairs, as in texts=[(tokens, mask)] * 100")
    if not jnp.isfinite(report.loss):
        raise ValueError("training has diverged (NaN): Config(learning_rate=1e-4)")
    return Heard(state.dictionary.scaled(1 / loss.unit, 1 / loss.unit), report, kl)


def _activations(
    model, tokens, mask, counts, site: str, layer: int, sink_norm: Array
) -> Float[Array, "token d_in"]:
    """Those that are replaced. Raises `ValueError` where there are none."""
    read = Sites(**{site: ByLayer((Read(),), (layer,))})
    _, records = run(model, tokens, read, mask=mask)
    x = getattr(records, site)[layer]
    found = x[_replaced(x, counts, sink_norm)]
    if not len(found):
        raise ValueError("every token is masked: give a larger sink_norm, or longer texts")
    return found


def _first(config: Config, start: Coded | None, x: Array, unit: Array) -> Coded:
    """What training begins with, in units of the activations' size."""
    found = build(config, keys(config)[0], x.shape[-1], start=x.mean(axis=0))
    found = found if start is None else start.scaled(unit, unit)
    if isinstance(found, Matryoshka) or not isinstance(found, Coded):
        raise ValueError(
            f"{type(found).__name__} has no end-to-end loss: prefixes would each need a run of the"
            ' model, transcoders another site; use Config("topk") or Config("batchtopk")'
        )
    return found
