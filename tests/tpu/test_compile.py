"""Training steps and activation extraction compile for TPUs, fit, and move no activations.

uv run --group tpu pytest -m tpu -n 0
"""

from collections import Counter

import pytest
from collectives import Collective
from programs import CONFIGS, CONTEXTS, D_IN, EXTRACTION, POS, PROGRAMS, TOKENS, WIDTH

from jaxcirc.experiments import CHIPS, SHAPES
from jaxcirc.experiments._budget import CODES, Layout
from jaxcirc.experiments._job import Job

pytestmark = pytest.mark.tpu

MESHES = {
    "v5e:2x2": (2, 2),
    "v5e:4x4": (4, 4),
    "v5p:2x2x1": (2, 2),
    "v5p:4x4x1": (4, 4),
}
"""Topologies, and how many of their devices lie along data and dictionary."""

ONE = ("v5e:2x2", "v5p:2x2x1")
"""Topologies of whose devices one is used."""


def hbm(topology: str) -> float:
    return CHIPS[topology.partition(":")[0]].hbm


@pytest.mark.parametrize("topology", ONE)
@pytest.mark.parametrize("program", PROGRAMS)
def test_on_one_device(compiler, program, topology):
    found = compiler(program, topology, None)
    assert 0 < found.bytes < hbm(topology)
    assert found.collectives == []


@pytest.mark.parametrize("topology", MESHES)
@pytest.mark.parametrize("program", CONFIGS)
def test_a_step_on_a_mesh(compiler, program, topology):
    data, dictionary = MESHES[topology]
    found = compiler(program, topology, (data, dictionary))
    assert 0 < found.bytes < hbm(topology)
    assert found.collectives, "gradients must be summed over the data axis"
    for moved in found.collectives:
        assert not of_codes(moved, TOKENS // data, WIDTH // dictionary), moved


def of_codes(moved: Collective, tokens: int, features: int) -> bool:
    """Whether tokens by features are moved, all or a device's, or anything as large but weights."""
    for array in moved.arrays:
        rows, columns = {tokens, TOKENS} & set(array.shape), {features, WIDTH} & set(array.shape)
        weights = D_IN in array.shape and columns
        if (rows and columns) or (not weights and array.elements >= tokens * features):
            return True
    return False


@pytest.mark.parametrize("name", [name for name in CONFIGS if name in CODES])
def test_the_plan_allows_for_what_the_compiler_needs(compiler, name):
    """Within a factor of 1.5, on one device and on a mesh; there a v5e keeps small codes beside its
    cores, not in the memory that is counted, so more is planned."""
    job = Job(SHAPES["smollm2-135m"], CONFIGS[name], D_IN, None, 13, 256, 16, 256, "bfloat16")
    for mesh in ((1, 1), (2, 2)):
        at, found = Layout(job, CHIPS["v5e"], *mesh), compiler(name, "v5e:2x2", mesh)
        planned = sum(at.kept) + at.pair + at.step_temporaries
        assert found.arguments == pytest.approx(sum(at.kept) + at.pair, rel=0.01)
        assert found.bytes / 1.5 < planned and (planned < 1.5 * found.bytes or mesh == (2, 2))


@pytest.mark.parametrize("topology", MESHES)
def test_extraction_on_a_mesh_moves_nothing(compiler, topology):
    found = compiler(EXTRACTION[0], topology, MESHES[topology])
    assert 0 < found.bytes < hbm(topology)
    assert found.collectives == []


@pytest.mark.parametrize("topology", MESHES)
def test_extraction_with_weights_cut_moves_what_the_plan_counts(compiler, topology):
    """The scan's block is compiled once: one block's sums and contexts, and no weights."""
    whole = compiler(EXTRACTION[0], topology, MESHES[topology])
    found = compiler(EXTRACTION[1], topology, MESHES[topology])
    assert found.arguments < whole.arguments and found.bytes < hbm(topology)
    shape, tokens = SHAPES["smollm2-135m"], CONTEXTS * POS
    results = [
        array for moved in found.collectives for array in moved.arrays if len(array.shape) > 2
    ]
    assert max(array.elements for array in results) <= tokens * shape.d_model
    counted = tokens * (shape.summed + shape.d_model)
    moved = sum(array.elements for array in results) / 2  # what comes out went in
    assert counted / 2 < moved < 1.5 * counted


def test_summary(compiler, capsys):
    """Last: how many programs were compiled, for what."""
    counts = Counter((key[1], found.devices) for key, found in compiler.done.items())
    assert counts, "no program was compiled"
    with capsys.disabled():
        print(f"\n{len(compiler.done)} programs compiled ahead of time")
        for (topology, devices), n in sorted(counts.items()):
            of = [found for key, found in compiler.done.items() if key[1] == topology]
            seconds = sum(found.seconds for found in of if found.devices == devices)
            print(f"  {n:3} for {topology} on {devices} device(s), {seconds:.0f} s")
