"""`Effects`: what exact patching measured, with its sign as a field. May import `tasks`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._types import Direction
from ..tasks import Interval, Prompts, interval, name_metrics, recovered, sign


def around(layer: int, window: int, n_layers: int) -> range:
    """The layers patched together with one: `window` of them centred on it, cut at the ends.

    >>> around(5, 3, 12)
    range(4, 7)
    """
    if not 1 <= window <= n_layers:
        raise ValueError(f"window={window}: this model has {n_layers} layers; use 1..{n_layers}")
    return range(max(0, layer - window // 2), min(n_layers, layer + (window + 1) // 2))


class Effects(eqx.Module):
    """Effects of patching the cells of one site, per example.

    - `raw`: metric(patched) - metric(base), axes `axes` = ("example", "layer", ...).
    - `base`, `source`: Float[example], the metric on the run patched into and on the run patched
      from.
    - `templates`: Int[example], the clusters of every interval.
    - `sign`: of `importance`, by direction and metric.
    """

    raw: Float[Array, "example layer ..."]
    base: Float[Array, "example"]
    source: Float[Array, "example"]
    templates: Int[Array, "example"]
    site: str = eqx.field(static=True)
    metric: str = eqx.field(static=True)
    direction: Direction = eqx.field(static=True)
    sign: float = eqx.field(static=True)
    axes: tuple[str, ...] = eqx.field(static=True)

    @property
    def importance(self) -> Float[Array, "example layer ..."]:
        """Positive where the component helps: -raw when noising, raw when denoising."""
        return self.sign * self.raw

    def reshaped(self, shape: tuple[int, ...], axes: tuple[str, ...], site: str) -> "Effects":
        """The same effects on a grid of cells."""
        return dataclasses.replace(self, raw=self.raw.reshape(shape), axes=axes, site=site)

    def summed(self, window: int) -> "Effects":
        """Single-layer effects added up over the layers that `sweep(window=)` patches together."""
        n = self.raw.shape[1]
        sums = [self.raw[:, list(around(i, window, n))].sum(axis=1) for i in range(n)]
        return dataclasses.replace(self, raw=jnp.stack(sums, axis=1))

    def mean(self) -> Float[Array, "layer ..."]:
        """The mean raw effect over examples."""
        return self.raw.mean(axis=0)

    def interval(self, *cell: int) -> Interval:
        """The mean raw effect of one cell with its interval, clustered by template."""
        return interval(np.asarray(self.raw)[(slice(None), *cell)], np.asarray(self.templates))

    def recovered(self, *cell: int) -> Interval:
        """The share of the way from base to source that patching one cell goes: a ratio of means.

        Raises `ValueError` if the mean distance lies within two standard errors of zero.
        """
        base, source = np.asarray(self.base), np.asarray(self.source)
        patched = base + np.asarray(self.raw)[(slice(None), *cell)]
        return recovered(patched, base, source, np.asarray(self.templates))


def per_node(
    raw: Mapping[str, Any],
    base: Mapping[str, Any],
    source: Mapping[str, Any],
    prompts: Prompts,
    metric,
    direction: Direction,
    site: str,
) -> Any:
    """`Effects` with axes ("example", "node") from arrays by metric; a dictionary if `metric` is
    one."""
    made = {
        name: Effects(
            jnp.asarray(raw[name]),
            jnp.asarray(base[name]),
            jnp.asarray(source[name]),
            jnp.asarray(prompts.templates),
            site,
            name,
            direction,
            sign(direction, f),
            ("example", "node"),
        )
        for name, f in name_metrics(metric)
    }
    return made if isinstance(metric, Mapping) else next(iter(made.values()))
