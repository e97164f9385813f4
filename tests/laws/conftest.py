"""Laws run strictly: no implicit dtype promotion, warnings are errors."""

import warnings

import jax
import pytest
from cases import SHAPES, UNLIKE, here, tiny, tokens

from jaxcirc.taps import Read, Sites, run


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module", params=[*SHAPES, "smollm2"])
def model(request):
    """Every model of the table, and the real one."""
    if request.param == "smollm2":
        return request.getfixturevalue("smollm2")[0]
    return tiny(request.param)


@pytest.fixture(scope="module", params=UNLIKE)
def tiny_model(request):
    """Two unlike models, where a law needs many compiles."""
    return tiny(request.param)


@pytest.fixture(scope="module")
def seen(model):
    """(logits, records) of one run on the usual tokens with every site read."""
    return run(model, tokens(), Sites(**{site: Read() for site in here(model)}))
