"""`jaxcirc plan`."""

import dataclasses
from typing import Annotated, Literal

import tyro

from .. import experiments
from ..dictionaries import Config
from ..dictionaries.train import Architecture
from ._show import console, table_of
from ._where import Where, split

GIB = 2**30

MOVED = ("of", "kind", "over", "MB", "MB sent")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What training a dictionary needs of an accelerator, before there is one: memory, what devices
    send each other, and the least time of a step."""

    device: str = "v5e-8"
    """A chip and how many: v4, v5e, v5p, v6e (v4 and v5p count cores, two a chip), a100, h100,
    h200."""
    model: str = "gemma-2-2b"
    """A well-known language model."""
    where: tyro.conf.OmitArgPrefixes[Where] = Where()
    """What the dictionary reads."""
    target: str | None = None
    """A transcoder's target, at the same layer: --place "mlp_normed.12>mlp_out.12" says both."""
    width: Annotated[int, tyro.conf.arg(aliases=["--d-dict"])] = 131072
    """Features."""
    batch: int = 8192
    """Tokens in a step."""
    k: int = 64
    """Active features a token."""
    architecture: Architecture = "topk"
    """Of the dictionary."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the dictionary's arithmetic; parameters and optimiser stay float32."""
    context: int = 256
    """Tokens in a context."""
    rows: int = 16
    """Contexts that the language model takes at once."""
    block: int = 256
    """Contexts that are shuffled together."""

    def __call__(self) -> None:
        config = Config(
            self.architecture, d_dict=self.width, k=self.k, batch=self.batch, dtype=self.dtype
        )
        site, layer, target = split(self.where.one() or "resid_post.12")
        found = experiments.plan_training(
            self.device,
            self.model,
            site,
            layer,
            config,
            target=self.target or target,
            context=self.context,
            rows=self.rows,
            block=self.block,
        )
        _print(found)


def _print(plan: experiments.Plan) -> None:
    """Memory, collectives and floors, and what they come to."""
    weights = "its matrices cut over all devices" if plan.split else "whole"
    console.print(
        f"[bold]{plan.config.architecture}[/], {plan.config.d_dict:,} features beside {plan.model}"
        f" ({weights}) on {plan.device}: {plan.data} x {plan.shards} devices (data x dictionary)"
    )
    memory = [{"a device holds": name, "GiB": size / GIB} for name, size in plan.memory.items()]
    memory.append({"a device holds": "all", "GiB": plan.bytes / GIB})
    columns = ("a device holds", "GiB")
    console.print(table_of(f"memory, of {plan.limit / GIB:.1f} GiB a device", memory, columns))
    if plan.moves:
        console.print(table_of("collectives of a step", [_row(m) for m in plan.moves], MOVED))
    times = [{"a step is at least": n, "ms": s * 1e3} for n, s in plan.seconds.items()]
    console.print(table_of("floors", times, ("a step is at least", "ms")))
    console.print(
        f"at least {plan.floor * 1e3:.3g} ms a step, so at most {plan.tokens_per_second:,.0f}"
        f" tokens a second: bound by the {plan.bound}"
    )


def _row(move: experiments.Move) -> dict[str, str | float]:
    over = f"{move.axis} ({move.over})"
    return {
        **{"of": move.what, "kind": move.kind, "over": over},
        **{"MB": move.bytes / 1e6, "MB sent": move.sent / 1e6},
    }
