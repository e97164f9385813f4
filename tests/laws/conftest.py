"""Laws run strictly: no implicit dtype promotion, warnings are errors."""

import warnings

import jax
import pytest
from cases import SHAPES, tiny


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="session", params=[*SHAPES, "smollm2"])
def model(request):
    """Every model of the table, and the real one."""
    if request.param == "smollm2":
        return request.getfixturevalue("smollm2")[0]
    return tiny(request.param)


@pytest.fixture(scope="session", params=SHAPES)
def tiny_model(request):
    """Every small model of the table, where a law needs many compiles."""
    return tiny(request.param)
