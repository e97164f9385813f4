"""Where the numbers of a run go: JSON lines always, other loggers if they are installed.

A logger is a function of (step, numbers). May import nothing of the package.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Logger = Callable[[int, Mapping[str, float]], None]

LOGGERS = ("tensorboard", "wandb", "trackio")


def json_lines(path: str | os.PathLike) -> Logger:
    """One line of JSON a report. A resumed run takes back the lines that it makes again.

    >>> json_lines("runs/sae/metrics.jsonl")(50, {"l0": 32.0})
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    last = _last_step(path)

    def write(step: int, numbers: Mapping[str, float]) -> None:
        nonlocal last
        if step <= last:
            _cut(path, step)
        with path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        last = step

    return write


def _lines(path: Path) -> list[str]:
    """Whole lines; a line that a killed run left half written is not one."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]


def _last_step(path: Path) -> int:
    lines = _lines(path)
    _rewrite(path, lines)
    return json.loads(lines[-1])["step"] if lines else -1


def _cut(path: Path, step: int) -> None:
    _rewrite(path, [line for line in _lines(path) if json.loads(line)["step"] < step])


def _rewrite(path: Path, lines: list[str]) -> None:
    if path.exists() or lines:
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text("".join(lines))
        partial.replace(path)


def open_logger(name: str, folder: Path, config: Mapping[str, Any]) -> Logger:
    """A logger by name: "tensorboard", "wandb" or "trackio".

    Raises `ValueError` for another name, or if its package is not installed.
    """
    opened = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
    if name not in opened:
        raise ValueError(f"unknown logger {name!r}: use one of {', '.join(LOGGERS)}")
    try:
        return opened[name](folder, config)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} is not installed: pip install {error.name}") from None


def _tensorboard(folder: Path, config: Mapping[str, Any]) -> Logger:
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    writer = SummaryWriter(str(folder / "tensorboard"))

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return write


def _wandb(folder: Path, config: Mapping[str, Any]) -> Logger:
    import wandb  # pyright: ignore[reportMissingImports]

    run = wandb.init(
        project="jaxcirc",
        name=folder.name,
        id=folder.name,  # the same folder is the same run, and goes on
        resume="allow",
        config=dict(config),
        dir=str(folder),
    )
    return lambda step, numbers: run.log(dict(numbers), step=step)


def _trackio(folder: Path, config: Mapping[str, Any]) -> Logger:
    import trackio  # pyright: ignore[reportMissingImports]

    run = trackio.init(project="jaxcirc", name=folder.name, config=dict(config))
    return lambda step, numbers: run.log({"step": step, **numbers})
