"""Errors carry their hint beside the message, through processes and callers that know better."""

from __future__ import annotations

import ast
import pickle
import re

import pytest

from nx47dask import errors
from nx47dask.engine.worker import run_task
from nx47dask.errors import BlockError, DeviceMemoryError, InputError, StorageError
from tests.unit.test_house import MODULES, PACKAGE

KINDS = [getattr(errors, name) for name in errors.__all__]
FLAG = re.compile(r"(?<![\w-])--[a-z]")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_hint_notes_and_attributes(kind):
    error = kind("a.tif: 3 is not 4", hint="copy it again")
    error.worker = "tcp://there:1"
    error.add_note("a traceback")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.message, back.hint, str(back)) == (error.message, error.hint, str(error))
    assert (back.worker, back.__notes__) == ("tcp://there:1", ["a traceback"])


def test_words_of_an_error_are_message_and_hint():
    assert str(InputError("a.tif: 3 is not 4")) == "a.tif: 3 is not 4"
    assert str(InputError("a.tif: 3 is not 4", hint="copy it again")) == "a.tif: 3 is not 4; copy it again"
    assert str(InputError("two differ:\n  a\n  b", hint="copy them")) == "two differ:\n  a\n  b\ncopy them"


def test_a_caller_replaces_the_hint_and_keeps_the_rest():
    cause = OSError("disk")
    error = DeviceMemoryError("block 3: no memory", hint="lower batch")
    error.worker, error.__cause__ = "tcp://there:1", cause
    told = error.at("run a").with_hint("end what else runs")
    assert type(told) is DeviceMemoryError
    assert str(told) == "run a: block 3: no memory; end what else runs"
    assert (told.worker, told.__cause__) == ("tcp://there:1", cause)
    assert str(error) == "block 3: no memory; lower batch"


def test_a_task_puts_its_place_before_the_message_alone():
    def full():
        raise StorageError("a.zarr: cannot be written", hint="make room")

    def broken():
        raise KeyError("z")

    with pytest.raises(StorageError) as ours:
        run_task(full, (), "block 3")
    assert (ours.value.message, ours.value.hint) == ("block 3: a.zarr: cannot be written", "make room")
    assert "Traceback" in ours.value.__notes__[0]
    with pytest.raises(BlockError, match="block 3: KeyError: 'z'"):
        run_task(broken, (), "block 3")


def without_hints(node):
    """All of a tree but hints, which are keywords, and command lines of other programs, which are lists in calls."""
    yield node
    for child in ast.iter_child_nodes(node):
        hint = isinstance(child, ast.keyword) and child.arg == "hint"
        command = isinstance(child, ast.List) and isinstance(node, ast.Call)
        if not (hint or command):
            yield from without_hints(child)


def words(tree, arguments):
    """Text in arguments, and in whatever the names in them are bound to in the same module."""
    inside = [node for argument in arguments for node in without_hints(argument)]
    names = {node.id for node in inside if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and names & {getattr(target, "id", None) for target in node.targets}:
            inside += without_hints(node.value)
    return [node.value for node in inside if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def messages(tree):
    """Line and text of what is raised or logged."""
    says = {*errors.__all__, "error", "warning", "info", "at"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in says:
            yield from ((node.lineno, text) for text in words(tree, node.args))


BELOW_THE_COMMAND_LINE = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] != "cli"]


@pytest.mark.parametrize("path", BELOW_THE_COMMAND_LINE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_message_names_an_option_of_the_command_line(path):
    assert [found for found in messages(ast.parse(path.read_text())) if FLAG.search(found[1])] == []


def test_an_option_in_a_message_is_seen():
    seen = ast.parse('way = "--block"\nraise InputError(f"use {way}")\nraise InputError("a", hint="--out")')
    assert [text for _, text in messages(seen) if FLAG.search(text)] == ["--block"]
