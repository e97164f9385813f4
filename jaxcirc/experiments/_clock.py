"""Seconds of compiling and of running, told apart. Imports nothing of jaxcirc."""

import contextlib
import time
from collections.abc import Iterator

import jax

_COMPILING = ("/jax/core/compile/", "/jax/compilation_cache/cache_retrieval_time_sec")
_spent = {"compile": 0.0}


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event.startswith(_COMPILING):
        _spent["compile"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Fills in "compile" (tracing, lowering, compiling), "run" (all the rest) and "total".

    >>> with clock() as seconds:
    ...     jax.block_until_ready(f(x))
    """
    seconds: dict[str, float] = {}
    began, before = time.perf_counter(), _spent["compile"]
    yield seconds
    total = time.perf_counter() - began
    compiling = min(_spent["compile"] - before, total)
    seconds.update(compile=compiling, run=total - compiling, total=total)
