"""`Effects`: what exact patching measured, with its sign as a field. May import `tasks`."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from .._types import Direction
from ..tasks import Interval, interval, recovered

SIGN = {"noise": -1.0, "denoise": 1.0}
"""importance = SIGN * raw: positive helps the behaviour."""


class Effects(eqx.Module):
    """Effects of patching the cells of one site, per example.

    - `raw`: metric(patched) - metric(base), axes `axes` = ("example", "layer", ...).
    - `base`, `source`: Float[example], the metric on the run patched into and on the run patched from.
    - `templates`: Int[example], the clusters of every interval.
    """

    raw: Float[Array, "example layer ..."]
    base: Float[Array, "example"]
    source: Float[Array, "example"]
    templates: Int[Array, "example"]
    site: str = eqx.field(static=True)
    metric: str = eqx.field(static=True)
    direction: Direction = eqx.field(static=True)
    axes: tuple[str, ...] = eqx.field(static=True)

    @property
    def importance(self) -> Float[Array, "example layer ..."]:
        """Positive where the component helps: -raw when noising, raw when denoising."""
        return SIGN[self.direction] * self.raw

    def reshaped(self, shape: tuple[int, ...], axes: tuple[str, ...], site: str) -> "Effects":
        """The same effects on a grid of cells."""
        raw = self.raw.reshape(shape)
        ends = (self.base, self.source, self.templates)
        return Effects(raw, *ends, site, self.metric, self.direction, axes)

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
