"""The rules of the house: who imports whom, how large a module and a function get."""

from __future__ import annotations

import ast
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "nx47dask"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    "version",
    "errors",
    "words",
    "geometry",
    "files",
    "kernels",
    "merge",
    "phantom",
    "metrics",
    "io",
    "models",
    "steps",
    "detectors",
    "engine",
    "monitor",
    "cluster",
    "workflow",
    "runs",
    "stages",
    "planning",
    "reports",
    "commands",
    "calibration",
    "cli",
)
"""The rooms from the ground up; a module imports from its own room and from those below."""
WITHOUT = {
    "dask": LAYERS[: LAYERS.index("monitor")],
    "distributed": tuple(room for room in LAYERS if room not in ("cluster", "monitor")),
    "zarr": ("kernels", "merge", "steps", "detectors", "models", "metrics"),
    "tifffile": ("kernels", "merge", "steps", "detectors", "models", "metrics"),
}
"""Libraries, and the rooms that know nothing of them."""


def module_name(path):
    """``nx47dask.io.tiff`` for its file, ``nx47dask.io`` for the file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """All modules that a module imports, wherever in it and for whatever purpose."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in NAMES else node.module or "" for name in named)


NAMES = {module_name(path): path for path in MODULES}
IMPORTS = {name: sorted({other for other in imports(path) if other != name}) for name, path in NAMES.items()}


def room(name):
    """The folder or lone module of the package that a module belongs to."""
    return name.split(".")[1]


def test_every_room_has_its_layer():
    assert {room(name) for name in NAMES if "." in name} - {"__main__"} == set(LAYERS)


@pytest.mark.parametrize("name", [name for name in NAMES if "." in name and room(name) != "__main__"])
def test_arrows_go_down(name):
    own = LAYERS.index(room(name))
    others = [other for other in IMPORTS[name] if other in NAMES]
    assert [other for other in others if "." not in other or LAYERS.index(room(other)) > own] == []
    assert [other for other in IMPORTS[name] if room(name) in WITHOUT.get(other.split(".")[0], ())] == []


def test_no_modules_import_one_another_in_a_circle():
    sorter = TopologicalSorter({name: [other for other in found if other in NAMES] for name, found in IMPORTS.items()})
    sorter.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 420
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = (ast.get_docstring(node, clean=False) or "").count("\n")
            body = node.end_lineno - node.body[0].lineno - docstring  # a signature is documentation, as its docstring
            assert body < 50, f"{path}:{node.lineno} {node.name}"


RIDDLES = ("What", "Which", "Whether", "How", "Who", "Where", "When")
"""A docstring that begins so makes its reader wait for the verb."""


def docstrings(tree):
    """Docstrings of modules, classes and functions, and those that stand below an attribute or a constant."""
    for node in ast.walk(tree):
        for child in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            value = getattr(child, "value", None) if isinstance(child, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_docstrings_begin_with_a_verb_or_a_noun(path):
    found = list(docstrings(ast.parse(path.read_text())))
    assert [text.splitlines()[0] for text in found if text.split(maxsplit=1)[0] in RIDDLES] == []


BENCHMARKS = PACKAGE.parent / "tests" / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_imports(path):
    assert importlib.import_module(f"tests.benchmarks.{path.stem}").__doc__
