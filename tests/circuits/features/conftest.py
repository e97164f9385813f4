"""Feature circuits are tested in float64."""

import jax
import pytest


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def double_fixtures():
    """The same for fixtures of a module."""
    with jax.enable_x64(True):
        yield
