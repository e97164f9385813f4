"""Kernels compile for TPUs, and need no memory beside what they read and write.

uv run --group tpu pytest -m tpu -n 0 tests/tpu/test_kernels.py
"""

import math

import pytest
from programs import SIZES
from test_compile import ONE

pytestmark = pytest.mark.tpu


def nbytes(size: str) -> int:
    tokens, width, dtype = SIZES[size]
    return math.prod((tokens, width, dtype.dtype.itemsize))


@pytest.mark.parametrize("topology", ONE)
@pytest.mark.parametrize("size", SIZES)
def test_counts_in_a_kernel_need_no_memory_of_their_own(compiler, size, topology):
    found = compiler(f"counts in a kernel, {size}", topology, None)
    assert found.outputs <= 1.05 * nbytes(size) and found.temporaries < 2**20


@pytest.mark.parametrize("topology", ONE)
@pytest.mark.parametrize("size", ["float32", "bfloat16"])
def test_a_sort_needs_several_times_the_memory(compiler, size, topology, capsys):
    forms = ("counts in a kernel", "counts", "sort")
    temporaries = {f: compiler(f"{f}, {size}", topology, None).temporaries for f in forms}
    with capsys.disabled():
        print(f"\n  {topology}, {size}: temporaries in MB", end="")
        print("".join(f"; {form} {n / 1e6:.1f}" for form, n in temporaries.items()), end="")
    assert temporaries["sort"] > 2 * nbytes(size)
    assert temporaries["counts in a kernel"] < temporaries["counts"] + 2**20


@pytest.mark.parametrize("topology", ONE)
def test_a_population_has_one_kernel(compiler, topology):
    found = compiler("a population's kernels, bfloat16", topology, None)
    assert found.temporaries < 2**20
