"""One block of a decoder, serial or parallel, with its norms. May import `taps`."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..taps import Sites, Taps, Timeline
from .attention import Attention
from .mlp import MLP
from .norm import AbstractNorm

Stream = Float[Array, "batch pos d_model"]


class Block(eqx.Module):
    """resid_mid = resid_pre + attn(norm(resid_pre)); resid_post = resid_mid + mlp(norm(resid_mid)).

    In a parallel block the MLP reads resid_pre and there is no resid_mid; with `mlp_norm` None it
    then shares attention's norm. `mlp` None makes an attention-only block. Post-norms act on what
    is added to the stream.
    """

    attn: Attention
    mlp: MLP | None = None
    attn_norm: AbstractNorm | None = None
    mlp_norm: AbstractNorm | None = None
    attn_post_norm: AbstractNorm | None = None
    mlp_post_norm: AbstractNorm | None = None
    parallel: bool = eqx.field(static=True, default=False)

    def __call__(self, layer: Int[Array, ""], x: Stream, time: Timeline, tap: Taps) -> Stream:
        """The stream after the block: Float[batch pos d_model]."""
        x = tap("resid_pre", x)
        attn_out = self._attend(layer, x, time, tap)
        if self.parallel:
            return tap("resid_post", x + attn_out + self._transform(x, tap))
        x = tap("resid_mid", x + attn_out)
        if self.mlp is None:
            return tap("resid_post", x)
        return tap("resid_post", x + self._transform(x, tap))

    def _attend(self, layer, x: Stream, time: Timeline, tap: Taps) -> Stream:
        z = tap.make("z", partial(self._heads, layer, x, time))
        return tap("attn_out", self.attn.write(z, self.attn_post_norm, tap))

    def _heads(self, layer, x: Stream, time: Timeline, tap: Taps) -> Array:
        x = tap("attn_in", x)
        if tap.wants("q_in", "k_in", "v_in"):
            weights = {"q_in": self.attn.w_q, "k_in": self.attn.w_k, "v_in": self.attn.w_v}
            q, k, v = (self._read(tap, site, x, w.shape[-2]) for site, w in weights.items())
        else:
            normed = x if self.attn_norm is None else self.attn_norm(x, tap, "attn_norm_scale")
            q = k = v = tap("attn_normed", normed)
        return self.attn((q, k, v), layer, time, tap)

    def _read(self, tap: Taps, site: str, x: Stream, n_heads: int) -> Array:
        """What each head reads, apart; its norm's scale is no site, since all would share it."""
        x = tap(site, jnp.broadcast_to(x[:, :, None], (*x.shape[:2], n_heads, x.shape[2])))
        return x if self.attn_norm is None else self.attn_norm(x, _UNTAPPED, "attn_norm_scale")

    def _transform(self, x: Stream, tap: Taps) -> Array:
        if self.mlp is None:
            return jnp.zeros_like(x)
        return tap.make("mlp_out", partial(self._mlp_out, self.mlp, x))

    def _mlp_out(self, mlp: MLP, x: Stream, tap: Taps) -> Array:
        x = tap("mlp_in", x)
        if self.mlp_norm is not None:
            x = self.mlp_norm(x, tap, "mlp_norm_scale")
        elif self.parallel and self.attn_norm is not None:
            x = self.attn_norm(x, tap, "mlp_norm_scale")
        out = mlp(tap("mlp_normed", x), tap)
        return out if self.mlp_post_norm is None else self.mlp_post_norm(out, tap, "mlp_post_scale")


_UNTAPPED = Taps(Sites())
