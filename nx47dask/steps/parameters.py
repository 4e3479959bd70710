"""Parameters of a step, a source or the settings, read from their class.

A parameter is a field of a dataclass. Everything about it is in one place, the class: the limits, the usual search
range, the unit and the role are annotations of the field; the meaning is in the docstring::

    min_vox : int
        Components of at least this many voxels stay. Raise it to remove larger specks.
    ...
    min_vox: Annotated[int, Field(ge=1), Range(100, 20000, log=True, integer=True), Role.LEAST_OBJECT] = 100

Pydantic reads the limits and ignores the other annotations.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from nx47dask.steps.dimensions import Choices, Dimension, Range

__all__ = ["Parameter", "Role", "Unit", "parameters"]


class Role(Enum):
    """Role of a parameter, the same in every step that has such a parameter, for programs that set parameters."""

    THRESHOLD = "the only threshold on the probability"
    LOW_THRESHOLD = "the lower of two thresholds"
    HIGH_THRESHOLD = "the higher of two thresholds, raised to the lower one where it would lie below it"
    LEAST_OBJECT = "voxels of the smallest component that stays"
    EXTENT = "how far the step acts along each axis: with 0 everywhere it changes nothing"

    @property
    def is_threshold(self) -> bool:
        """True for the parameters that turn a probability into a mask."""
        return self in (Role.THRESHOLD, Role.LOW_THRESHOLD, Role.HIGH_THRESHOLD)


@dataclass(frozen=True)
class Unit:
    """Unit of a parameter whose name does not end in it."""

    name: str


@dataclass(frozen=True)
class Parameter:
    """Parameter of a step, a source or the settings.

    Attributes
    ----------
    name : str
    default : Any
    schema : mapping
        JSON schema of its values, with their limits.
    meaning : str
        Sentences of the docstring, on one line.
    unit : str
        Unit of the values; empty where it has none.
    search : Range, Choices or None
        Usual search range; None where it is not searched, or where the range depends on other parameters.
    role : Role or None
    """

    name: str
    default: Any
    schema: Mapping[str, Any]
    meaning: str
    unit: str
    search: Dimension | None
    role: Role | None


def parameters(kind: type) -> Mapping[str, Parameter]:
    """Return the parameters of a dataclass by name, in the order of its fields."""
    return _parameters(kind)


@lru_cache
def _parameters(kind: type) -> Mapping[str, Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    schema = TypeAdapter(kind).json_schema().get("properties", {})
    meanings = _meanings(kind)
    by_name = {}
    for field in dataclasses.fields(kind):
        notes = getattr(hints[field.name], "__metadata__", ())
        by_name[field.name] = Parameter(
            field.name,
            field.default,
            schema[field.name],
            meanings.get(field.name, ""),
            next((note.name for note in notes if isinstance(note, Unit)), _unit(field.name)),
            next((note for note in notes if isinstance(note, Range | Choices)), None),
            next((note for note in notes if isinstance(note, Role)), None),
        )
    return by_name


def _unit(name: str) -> str:
    """Return the unit that the name of a parameter ends in; empty for none."""
    return "voxels" if name.endswith("_vox") else ""


def _meanings(kind: type) -> dict[str, str]:
    """Collect the sentences on each parameter from the docstrings of a class and its base classes."""
    meanings: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        meanings |= dict(_documented(inspect.cleandoc(ancestor.__doc__ or "")))
    return meanings


def _documented(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each entry of the section "Parameters" of a numpydoc docstring."""
    _, heading, rest = docstring.partition("Parameters\n----------\n")
    section = re.split(r"\n\n\S+\n-{3,}\n", rest)[0] if heading else ""
    for entry in re.split(r"\n(?=\S)", section):
        names, _, text = entry.partition("\n")
        for name in names.partition(" : ")[0].split(", "):
            yield name, " ".join(text.split())
