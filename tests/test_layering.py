"""Who may import whom: the table of the design, enforced on every import in the library."""

import ast
import sys
from pathlib import Path

import jaxcirc_kernels
import pytest

import jaxcirc

ROOT = Path(jaxcirc.__file__).parent

BELOW = {
    "_types": (),
    "_ops": ("_types",),
    "tasks": ("_types",),
    "taps": ("_types", "_ops"),
    "nn": ("_types", "_ops", "taps"),
    "models": ("_types", "taps", "nn"),
    "patching": ("_types", "taps", "tasks"),
    "attribution": ("_types", "taps", "tasks"),
    "observables": ("_types", "taps", "nn", "tasks"),
    "dictionaries": ("_types", "_ops", "taps"),
    "circuits": ("_types", "taps", "tasks", "patching", "attribution"),
    "zoo": ("_types", "taps", "nn", "models", "tasks", "patching", "circuits"),
    "experiments": (
        *("_types", "taps", "tasks", "models", "patching", "attribution", "circuits", "zoo"),
        *("dictionaries", "observables"),
    ),
    "viz": ("_types", "tasks", "taps", "experiments"),
    "cli": ("_types", "tasks", "models", "dictionaries", "zoo", "experiments", "viz"),
}
"""Each part of jaxcirc with all the others that it may import."""

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported(path: Path) -> set[str]:
    """The modules of jaxcirc that a file imports, as dotted names behind `jaxcirc.`."""
    found = all_imported(path, ("jaxcirc", *path.relative_to(ROOT).parent.parts))
    return {name.removeprefix("jaxcirc.") for name in found if name.split(".")[0] == "jaxcirc"}


def all_imported(path: Path, package: tuple[str, ...]) -> set[str]:
    """Everything that a file of a package imports, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *filter(None, [node.module])))
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_import_only_what_lies_below(path):
    part = part_of(path)
    others = {name.split(".")[0] for name in imported(path)} - {part}
    assert others <= set(BELOW[part]), f"{part} imports {others - set(BELOW[part])}"


def test_the_table_has_no_cycle_and_names_every_part():
    seen = set()
    for part, below in BELOW.items():
        assert seen >= set(below), f"{part} stands before something that it may import"
        seen.add(part)
    assert {part_of(path) for path in FILES} <= seen


def test_tables_of_contents_hold_no_logic():
    for path in ROOT.rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert is_docstring or isinstance(node, ast.ImportFrom), path


def test_kernels_import_no_more_than_jax_and_numpy_and_only_the_door_imports_them():
    kernels = Path(jaxcirc_kernels.__file__).parent
    for path in kernels.rglob("*.py"):
        tops = {name.split(".")[0] for name in all_imported(path, (kernels.name,))}
        assert tops - set(sys.stdlib_module_names) <= {"jax", "numpy", kernels.name}, path
    users = {path.name for path in FILES if kernels.name in str(all_imported(path, ()))}
    assert users == {"_ops.py"}


def test_a_wrong_import_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "taps").mkdir()
    file = tmp_path / "taps" / "_wrong.py"
    file.write_text("from .. import circuits\nfrom ..models.lm import LM\nimport jaxcirc.cli\n")
    assert imported(file) == {"circuits", "models.lm.LM", "cli"}
