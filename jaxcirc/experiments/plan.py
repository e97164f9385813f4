"""`jaxcirc plan --device v5e-8 --model gemma-2-2b`: what training a dictionary needs of a device.

Nothing is run and no device is asked for: bytes are those of the arrays that training keeps, and
times are floors, from arithmetic and bandwidth alone. Expect real steps at two to four times the
floor. May import `dictionaries`, `_budget`, `_chips`, `_job`, `_shapes`.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from ..dictionaries.train import Config
from ._budget import CODES, Layout, Move
from ._chips import GIB, Chip, parse_device
from ._job import Job
from ._shapes import Shape, parse_shape

SHARE = 0.92
"""How much of a device's memory may be planned for; the rest is the runtime's."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training run that fits.

    - `data`, `shards`: devices along which tokens and features are shared out. `split`: the
      language model's matrices are cut over all devices (put it there with `jax.device_put`).
    - `memory`: bytes on a device, by what for; `limit`: how many there may be. `moves`: collectives
      of one step.
    - `seconds`: least seconds of a step, by what sets them. `floor`: of the whole step. `bound`:
      what most of it goes to: "language model", "dictionary" or "links".
    """

    device: str
    model: str
    config: Config
    data: int
    shards: int
    split: bool
    memory: Mapping[str, float]
    limit: float
    moves: tuple[Move, ...]
    seconds: Mapping[str, float]
    floor: float
    bound: str

    @property
    def bytes(self) -> float:
        """Bytes on a device."""
        return sum(self.memory.values())

    @property
    def tokens_per_second(self) -> float:
        """At most so many tokens are learned from in a second."""
        return self.config.batch / self.floor


def plan_training(
    device: str,
    model: str | Shape,
    site: str,
    layer: int,
    config: Config,
    *,
    target: str | None = None,
    context: int = 256,
    rows: int = 16,
    block: int = 256,
    dtype: str = "bfloat16",
) -> Plan:
    """The fastest layout of a training run that fits a device, or a group of them.

    - `device`: as in "v5e-8" (see `CHIPS`). `model`: a name in `SHAPES`, or a `Shape`. `site`,
      `layer`: what is read; `target`: a transcoder's target at the same layer.
    - `context`: tokens of a context. `rows`: contexts that the language model takes at once.
      `block`: contexts that are shuffled together. `dtype`: of the language model.

    Returns `Plan`. Raises `ValueError` for what is not known, or does not fit; then with the
    nearest that does.

    >>> plan_training("v5e-8", "gemma-2-2b", "resid_post", 12, Config(d_dict=131072)).bound
    """
    chip, devices = parse_device(device)
    shape = parse_shape(model) if isinstance(model, str) else model
    if not 0 <= layer < shape.n_layers:
        raise ValueError(f"layer={layer}: {shape.name} has layers 0..{shape.n_layers - 1}")
    if config.architecture not in CODES:
        known = ", ".join(CODES)
        raise ValueError(f"no plan for a {config.architecture}: plans are made for {known}")
    for name, value in (("context", context), ("rows", rows), ("block", block)):
        if value < 1:
            raise ValueError(f"{name}={value}: give a positive number")
    d_out = None if target is None else shape.width(target)
    job = Job(shape, config, shape.width(site), d_out, layer + 1, context, rows, block, dtype)
    found = _best(job, chip, devices)
    if found is None:
        raise ValueError(_refusal(job, chip, devices))
    return _plan(found)


def _best(job: Job, chip: Chip, devices: int) -> Layout | None:
    """The layout with the lowest floor among those that fit; of equals the simplest, smallest."""
    fitting = [at for at in _layouts(job, chip, devices) if at.bytes <= SHARE * chip.hbm]
    return min(fitting, key=lambda at: (at.floor, at.split, at.bytes), default=None)


def _layouts(job: Job, chip: Chip, devices: int) -> Iterator[Layout]:
    """All meshes that share out tokens and features evenly."""
    for shards in range(1, devices + 1):
        data = devices // shards
        whole = data * shards == devices
        if whole and job.config.d_dict % shards == 0 and job.config.batch % data == 0:
            yield Layout(job, chip, data, shards)
            if devices > 1:
                yield Layout(job, chip, data, shards, split=True)


def _plan(at: Layout) -> Plan:
    return Plan(
        device=at.chip.named(at.devices),
        model=at.job.shape.name,
        config=at.job.config,
        data=at.data,
        shards=at.shards,
        split=at.split,
        memory=at.memory,
        limit=SHARE * at.chip.hbm,
        moves=at.moves,
        seconds=at.seconds,
        floor=at.floor,
        bound=at.bound,
    )


def _refusal(job: Job, chip: Chip, devices: int) -> str:
    """What is needed, what there is, and what would fit: more devices, less batch, less width."""
    config, limit = job.config, SHARE * chip.hbm / GIB
    layouts = list(_layouts(job, chip, devices))
    if not layouts:
        return (
            f"{config.d_dict} features and {config.batch} tokens cannot be shared out evenly among"
            f" {devices} devices: use powers of two, --width {_power(config.d_dict)}"
            f" --batch {_power(config.batch)}"
        )
    least = min(layouts, key=lambda at: at.bytes)
    fits = [*_more_devices(job, chip, devices), *_smaller(job, chip, devices)]
    instead = f"; what fits: {' or '.join(fits)}" if fits else ""
    return (
        f"{config.d_dict} features beside {job.shape.name} need {least.bytes / GIB:.1f} GiB a"
        f" device at a batch of {config.batch}, {chip.named(devices)} has {limit:.1f}{instead}"
    )


def _more_devices(job: Job, chip: Chip, devices: int) -> Iterator[str]:
    while (devices := 2 * devices) <= chip.most:
        if _best(job, chip, devices):
            yield f"--device {chip.named(devices)}"
            return


def _smaller(job: Job, chip: Chip, devices: int) -> Iterator[str]:
    """The largest batch, and the largest width, that fits with all else as it is."""
    for field, option, least in (("batch", "--batch", 256), ("d_dict", "--width", 1024)):
        size = getattr(job.config, field) // 2
        while size >= max(least, job.config.active):
            config = dataclasses.replace(job.config, **{field: size})
            if _best(dataclasses.replace(job, config=config), chip, devices):
                yield f"{option} {size}"
                break
            size //= 2


def _power(n: int) -> int:
    """The power of two at or below n."""
    return 1 << (n.bit_length() - 1)
