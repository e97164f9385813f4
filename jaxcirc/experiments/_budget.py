r"""What one layout of a training run needs of a device: bytes, seconds, and what is moved.

A step takes n tokens through the first blocks of a language model, and through a dictionary of F
features of width d. On D x M devices (axes data and dictionary) each holds F / M features and sees
n / D tokens. What training keeps is counted from its own arrays; temporaries are estimates, checked
against the compiler's. May import `_chips` and `_job`.
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from ._chips import Chip
from ._job import Job, kept

FLOAT32 = 4

PRODUCTS = {"gated": 7}
"""Matrix products of tokens by width by features in a step. Encode, decode, and the gradients of
features and of both weights are five; a gated dictionary decodes twice."""

BY_ROWS = ("topk",)
"""Architectures that multiply but once, to encode, and take the active rows for all the rest: where
every device holds all features, but on a TPU."""

SHUFFLES = 3
"""Copies of the shuffled tokens while the next are gathered: the old, the parts, and the new."""

AUXILIARY = ("topk", "batchtopk", "matryoshka")
"""Architectures that learn what is left from features that are dead, once there are some."""

CODES = {
    **{"l1": 2.0, "l1_unit": 2.2, "p_anneal": 2.0, "gated": 3.2, "jumprelu": 3.0},
    **{"topk": 3.5, "batchtopk": 4.0, "matryoshka": 5.0},
}
"""Arrays of tokens by features alive at once, as compiled for a v5e."""

RANKS = 8
"""Bytes for every token and feature on top of those where `AUXILIARY` is: orders and masks."""


@dataclasses.dataclass(frozen=True)
class Move:
    """A collective of one step: of what, of which kind, along which axis of the mesh over how many
    devices, and the bytes of its result on a device."""

    what: str
    kind: Literal["all-reduce", "all-gather"]
    axis: str
    over: int
    bytes: float

    @property
    def sent(self) -> float:
        """Bytes that leave a device, in a ring."""
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * self.bytes * (self.over - 1) / self.over


@dataclasses.dataclass(frozen=True)
class Layout:
    """A job on a mesh of `data` x `shards` devices of a chip.

    - `split`: the language model's matrices are cut along their largest axis over all devices. XLA
      then takes the contexts to the weights: every device holds all of a run's, and sums of
      queries, keys, values and of what the MLP writes go around.
    """

    job: Job
    chip: Chip
    data: int
    shards: int
    split: bool = False

    @property
    def devices(self) -> int:
        return self.data * self.shards

    @property
    def rows(self) -> int:
        """Contexts that the language model takes at once: as many on every device."""
        return -(-self.job.rows // self.devices) * self.devices

    @property
    def runs(self) -> float:
        """Runs of the language model for one step's tokens."""
        return self.job.config.batch / (self.rows * self.job.context)

    @property
    def kept(self) -> tuple[int, int]:
        """Bytes of parameters, and of all else that training keeps."""
        return kept(self.job.config, self.job.d_in, self.job.d_out, self.shards)

    @property
    def code(self) -> float:
        """Bytes of a device's part of tokens by features."""
        config = self.job.config
        return config.batch / self.data * config.d_dict / self.shards * self.job.number

    @property
    def pair(self) -> float:
        """Bytes of what a step takes: inputs and targets, in float32."""
        job = self.job
        return FLOAT32 * job.config.batch * (job.d_in + (job.d_out or job.d_in)) / self.data

    @cached_property
    def memory(self) -> Mapping[str, float]:
        """Bytes on a device, by what for. The step and the language model take turns, so of their
        temporaries the larger counts."""
        job, (parameters, rest) = self.job, self.kept
        step, run = self.step_temporaries, self.run_temporaries
        larger = "temporaries of the step" if step >= run else "temporaries of the language model"
        shuffled = (job.block * job.context + job.config.batch) * job.width * job.item
        return {
            "parameters": parameters,
            "optimiser": rest,
            "language model": job.shape.weights * job.item / (self.devices if self.split else 1),
            "shuffled tokens": SHUFFLES * shuffled / self.data,
            "batch": self.pair + job.config.batch * job.width * job.item / self.data,
            larger: max(step, run),
        }

    @property
    def bytes(self) -> float:
        """All of it."""
        return sum(self.memory.values())

    @property
    def step_temporaries(self) -> float:
        """Codes and their gradients, candidates, and the gradients of the parameters."""
        config, number = self.job.config, self.job.number
        ranks = RANKS / number if config.architecture in AUXILIARY else 0
        slopes = self.kept[0] / FLOAT32 * number
        return (CODES[config.architecture] + ranks) * self.code + slopes + 2 * self.revived

    @property
    def by_rows(self) -> bool:
        """Whether the step takes active rows alone."""
        alone = self.shards == 1 and self.chip.kind != "tpu"
        return alone and self.job.config.architecture in BY_ROWS

    @property
    def gathered(self) -> float:
        """Bytes of the active rows that a device reads, to decode and for the slopes of features,
        and of those of both weights' slopes that it adds to."""
        job, each = self.job, self.job.config.batch / self.data * self.job.config.active
        d_out = job.d_out or job.d_in
        added = 2 * FLOAT32 * (job.d_in + d_out)
        return each * (2 * d_out * job.number + added) if self.by_rows else 0.0

    @property
    def revived(self) -> float:
        """Bytes of the candidates that the devices of a dictionary bring together, where dead
        features have to explain what is left: half of the width from each."""
        job, config = self.job, self.job.config
        if config.architecture not in AUXILIARY or self.shards == 1:
            return 0.0
        each = min((job.d_out or job.d_in) // 2, config.d_dict // self.shards)
        return config.batch / self.data * each * self.shards * job.number

    @property
    def run_temporaries(self) -> float:
        """One block's activations, its scores, and its weights."""
        job, shape = self.job, self.job.shape
        tokens = self.rows // (1 if self.split else self.devices) * job.context
        heads = (shape.n_heads + 2 * shape.n_kv_heads) * shape.d_head
        row = 3 * shape.d_model + heads + (1 + shape.gated) * shape.d_mlp
        scores = shape.n_heads * job.context * (FLOAT32 + job.item)
        return tokens * (row * job.item + scores) + shape.block * job.item

    @cached_property
    def moves(self) -> tuple[Move, ...]:
        """All collectives of a step that move more than counts."""
        job, config = self.job, self.job.config
        tokens, d_out = config.batch / self.data, job.d_out or job.d_in
        token = job.layers * job.item * (job.config.batch if self.split else 0)
        best = tokens * config.active * self.shards * job.number * (config.architecture == "topk")
        along, slopes = "dictionary", self.kept[0] / FLOAT32 * job.number
        found = (
            Move("gradients", "all-reduce", "data", self.data, slopes),
            Move("reconstructions", "all-reduce", along, self.shards, tokens * d_out * job.number),
            Move("activations", "all-gather", along, self.shards, tokens * job.width * job.item),
            Move("largest k", "all-gather", along, self.shards, best),
            Move("largest of the dead", "all-gather", along, self.shards, self.revived),
            Move("sums in blocks", "all-reduce", "both", self.devices, token * job.shape.summed),
            Move("contexts", "all-gather", "both", self.devices, token * job.shape.d_model),
        )
        return tuple(move for move in found if move.sent > 0)

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Least seconds of a step, by what sets them."""
        job, chip, config = self.job, self.chip, self.job.config
        least = 1 if self.by_rows else PRODUCTS.get(config.architecture, 5)
        products = least * (job.d_in + (job.d_out or job.d_in))
        multiplied = products * config.batch * config.d_dict / self.devices
        run = config.batch * job.shape.operations(job.layers, job.context) / self.devices
        read = max(1.0, self.runs) * job.layers * job.shape.block * job.item
        taken = 2 * sum(self.kept) + 2 * self.code + self.gathered
        return {
            "language model, arithmetic": run / chip.flops,
            "language model, memory": read / chip.bandwidth,
            "dictionary, arithmetic": multiplied / chip.flops,
            "dictionary, memory": taken / chip.bandwidth,
            "links": sum(move.sent for move in self.moves) / chip.link,
        }

    @property
    def parts(self) -> Mapping[str, float]:
        """Least seconds of the language model, the dictionary, and the links."""
        of = self.seconds
        parts = {
            part: max(of[f"{part}, arithmetic"], of[f"{part}, memory"])
            for part in ("language model", "dictionary")
        }
        return parts | {"links": of["links"]}

    @property
    def floor(self) -> float:
        """Least seconds of a step: the chip does one after the other, the links work meanwhile."""
        parts = self.parts
        return max(parts["language model"] + parts["dictionary"], parts["links"])

    @property
    def bound(self) -> str:
        """What sets the floor: the links, or the larger of what the chip does."""
        chip = {part: s for part, s in self.parts.items() if part != "links"}
        links = self.parts["links"] > sum(chip.values())
        return "links" if links else max(chip, key=chip.__getitem__)
