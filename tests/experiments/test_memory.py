"""Programs are let go before a process has too many memory maps."""

import jax
import jax.numpy as jnp

from jaxcirc.experiments import _memory
from jaxcirc.experiments.feature_circuits import Section, Store


@jax.jit
def double(x):
    return 2 * x


def test_programs_are_let_go_where_they_are_many(tmp_path, monkeypatch):
    maps = tmp_path / "maps"
    maps.write_text("one\n" * _memory.MOST_MAPS)
    monkeypatch.setattr(_memory, "_MAPS", maps)
    double(jnp.ones(3))
    assert not _memory.relieve() and double._cache_size() == 1
    maps.write_text("one\n" * (_memory.MOST_MAPS + 1))
    kept = Store(tmp_path / "study", {}).section("one", lambda: Section([{"x": 1}]))
    assert double._cache_size() == 0 and kept.rows == [{"x": 1}]
    assert double(jnp.ones(3)).tolist() == [2, 2, 2]
