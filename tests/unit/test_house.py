"""The rules of the house: who imports whom, how large a module and a function get."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "nx47dask"
MODULES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN = {
    "kernels": {"dask", "distributed", "zarr", "tifffile", "nx47dask.io", "nx47dask.engine", "nx47dask.stages"},
    "merge": {"dask", "distributed", "zarr", "tifffile", "nx47dask.io", "nx47dask.engine", "nx47dask.stages"},
    "steps": {"dask", "distributed", "zarr", "tifffile", "nx47dask.io", "nx47dask.engine", "nx47dask.stages"},
    "detectors": {"dask", "distributed", "zarr", "tifffile", "nx47dask.io", "nx47dask.engine", "nx47dask.stages"},
    "models": {"dask", "distributed", "zarr", "tifffile", "nx47dask.engine", "nx47dask.stages", "nx47dask.detectors"},
    "training": {"dask", "distributed", "nx47dask.engine", "nx47dask.stages", "nx47dask.workflow", "nx47dask.steps"},
    "calibrate": {"dask", "distributed", "zarr", "tifffile", "nx47dask.io", "nx47dask.engine", "nx47dask.stages"},
    "metrics": {"dask", "distributed", "nx47dask.engine", "nx47dask.stages"},
    "io": {"dask", "distributed", "nx47dask.engine", "nx47dask.stages", "nx47dask.kernels", "nx47dask.merge"},
    "engine": {"nx47dask.stages", "nx47dask.kernels", "nx47dask.merge", "nx47dask.detectors", "nx47dask.io"},
    "report": {"distributed", "nx47dask.engine", "nx47dask.stages"},
}


def imports(path):
    """All names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def within(name, package):
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_one_way(path):
    folder = path.relative_to(PACKAGE).parts[0]
    forbidden = FORBIDDEN.get(folder, set())
    if folder != "engine":
        forbidden = forbidden | {"distributed"}
    bad = [name for name in imports(path) for package in forbidden if within(name, package)]
    assert not bad


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 420
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = (ast.get_docstring(node, clean=False) or "").count("\n")
            body = node.end_lineno - node.body[0].lineno - docstring  # a signature is documentation, as its docstring
            assert body < 50, f"{path}:{node.lineno} {node.name}"


BENCHMARKS = PACKAGE.parent / "tests" / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_imports(path):
    assert importlib.import_module(f"tests.benchmarks.{path.stem}").__doc__
