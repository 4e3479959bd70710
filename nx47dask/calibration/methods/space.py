"""Define the search space of a calibration, its grid, and the workflows of its candidates.

A *candidate* is a mapping of keys to JSON values. The keys are those of ``--set``
(``postprocess.hysteresis.low``, ``detect.sheetness.weight``, ``combine``), where weight 0 leaves a source out, and
``postprocess.STEP.use``, where False leaves a step out.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from nx47dask.detectors import Combine
from nx47dask.errors import InputError
from nx47dask.files.documents import Key, unknown_key
from nx47dask.steps import STEPS
from nx47dask.steps.dimensions import DIGITS, Choices, Dimension, Range
from nx47dask.steps.parameters import Parameter, Role, parameters

__all__ = [
    "Candidate",
    "Choices",
    "Dimension",
    "Range",
    "SearchSpace",
    "default_space",
    "named",
    "own_values",
    "role_of",
    "sibling",
    "space_from",
    "split_key",
    "variant",
]

Candidate = dict[str, Any]
WEIGHTS = Range(0, 1, 0.1)
"""The usual search range of the weight of a source."""


@dataclass(frozen=True)
class SearchSpace:
    """Keys of a search with the values that each may have.

    Parameters
    ----------
    dimensions : dict of str to Range or Choices
    all_sources : bool
        True if the weights of all sources vary: then one of them must stay above 0, and only their shares count.
    """

    dimensions: dict[str, Dimension]
    all_sources: bool = True

    @property
    def weights(self) -> tuple[str, ...]:
        """Keys that are weights of sources."""
        return tuple(key for key in self.dimensions if key.startswith("detect."))

    @property
    def size(self) -> int | None:
        """Number of points of the grid, before repair; None where a range has no step."""
        sizes = [dimension.size for dimension in self.dimensions.values()]
        known = [size for size in sizes if size is not None]
        return math.prod(known) if len(known) == len(sizes) else None

    def grid(self) -> Iterator[Candidate]:
        """Yield every candidate once, repaired; the last key varies fastest.

        A point with the masks of an earlier point (see :meth:`identity`) is left out.

        Raises
        ------
        InputError
            A range has no step.
        """
        if self.size is None:
            endless = ", ".join(key for key, dimension in self.dimensions.items() if dimension.size is None)
            raise InputError(f"a grid needs a step in every range: give one to {endless}, or search with tpe")
        seen: set[str] = set()
        for values in itertools.product(*(dimension.values for dimension in self.dimensions.values())):
            candidate = self.repair(dict(zip(self.dimensions, values, strict=True)))
            identity = self.identity(candidate)
            if identity not in seen:
                seen.add(identity)
                yield candidate

    def at(self, shares: Sequence[float]) -> Candidate:
        """Return the repaired candidate at a point of the unit cube, one coordinate per key in [0, 1]."""
        pairs = zip(self.dimensions.items(), shares, strict=True)
        return self.repair({key: dimension.at(float(share)) for (key, dimension), share in pairs})

    def repair(self, candidate: Mapping[str, Any]) -> Candidate:
        """Return a valid candidate: a high threshold is raised to its low one; weights that are all 0 become 1."""
        repaired = dict(candidate)
        for key, value in candidate.items():
            low = sibling(key, Role.LOW_THRESHOLD) if role_of(key) is Role.HIGH_THRESHOLD else None
            if low and low in candidate and candidate[low] > value:
                repaired[key] = candidate[low]
        if self.all_sources and not any(candidate.get(key) for key in self.weights):
            repaired |= dict.fromkeys(self.weights, 1.0)
        return repaired

    def complexity(self, candidate: Mapping[str, Any]) -> int:
        """Count the sources of a weight above 0 and the steps in use, among those that the space varies.

        A step with ``use`` False does not count, nor does one whose extent is 0, such as a smoothing of sigma 0.
        """
        sources = sum(1 for key in self.weights if candidate[key] > 0)
        steps = {split_key(key)[1] for key in self.dimensions if key.startswith("postprocess.")}
        return sources + sum(self._acts(step, candidate) for step in steps)

    def identity(self, candidate: Mapping[str, Any]) -> str:
        """Return a text that is the same for candidates whose masks are the same.

        It has no parameters of steps that are left out, and weights are shares of their sum.
        """
        off = {key.removesuffix("use") for key in self.dimensions if key.endswith(".use") and not candidate[key]}
        acting = {
            key: candidate[key]
            for key in self.dimensions
            if key.endswith(".use") or key.removesuffix(split_key(key)[2]) not in off
        }
        if self.all_sources:
            total = math.fsum(candidate[key] for key in self.weights)
            acting |= {key: round(candidate[key] / total, DIGITS) for key in self.weights}
        return json.dumps(acting)

    def _acts(self, step: str, candidate: Mapping[str, Any]) -> bool:
        own = [key for key in self.dimensions if split_key(key)[1] == step]
        used = all(candidate[key] for key in own if split_key(key)[2] == "use")
        return used and all(any(candidate[key]) for key in own if role_of(key) is Role.EXTENT)


def split_key(key: str) -> tuple[str, str, str]:
    """Split ``section.item.field``; a setting such as ``combine`` has an empty section and item."""
    section, _, rest = key.rpartition(".")[0].partition(".")
    return section, rest, key.rpartition(".")[2]


def role_of(key: str) -> Role | None:
    """Return the role of a parameter of a post-processing step; None for any other key."""
    parameter = _parameters_beside(key).get(split_key(key)[2])
    return parameter.role if parameter else None


def sibling(key: str, role: Role) -> str | None:
    """Return the key of the parameter with a role in the same step; None where there is none."""
    names = [name for name, parameter in _parameters_beside(key).items() if parameter.role is role]
    return f"{key.rpartition('.')[0]}.{names[0]}" if names else None


def _parameters_beside(key: str) -> Mapping[str, Parameter]:
    """All parameters of the post-processing step that a key belongs to, by name."""
    section, name, _ = split_key(key)
    step = STEPS.get(name.partition("#")[0])
    return parameters(step) if step and section == "postprocess" else {}


def named(items: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, str, dict[str, Any]]]:
    """List name, kind and parameters of the items of ``detect`` or ``postprocess``: (closing#2, closing, {...})."""
    seen: dict[str, int] = {}
    entries = []
    for item in items:
        ((written, parameters),) = item.items()
        kind = written.partition("#")[0]
        seen[kind] = seen.get(kind, 0) + 1
        entries.append((kind if seen[kind] == 1 else f"{kind}#{seen[kind]}", kind, dict(parameters)))
    return entries


def space_from(data: Any, base: Mapping[str, Any], where: Callable[[Key, str], InputError]) -> SearchSpace:
    """Read a search space.

    Parameters
    ----------
    data : mapping
        ``KEY: {low: 0.7, high: 0.95, step: 0.01}``, ``KEY: {low: 100, high: 9999, log: true, integer: true}`` or
        ``KEY: [VALUE, ...]``.
    base : mapping
        The complete workflow that is varied, :attr:`nx47dask.workflow.Workflow.resolved`.
    where : callable
        The error for a key of ``data`` and a message.

    Raises
    ------
    InputError
        A key that the workflow does not have, a range without values, a value that a step refuses.
    """
    if not isinstance(data, Mapping) or not data:
        raise where((), "nothing to search: expected KEY: {low:, high:, step:} or KEY: [VALUE, ...]")
    sources = [f"detect.{name}." for name, _, _ in named(base["detect"])]
    allowed = _keys(base, sources)
    for key in data:
        if key not in allowed:
            raise where((key,), _refusal(str(key), sources, allowed))
    dimensions = {key: _dimension(key, given, where) for key, given in data.items()}
    space = SearchSpace(dimensions, all(f"{source}weight" in dimensions for source in sources))
    for key in space.weights:
        for value in _ends(dimensions[key]):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise where((key,), f"{key} = {value!r}: expected a number >= 0")
    for value in _ends(dimensions.get("combine", Choices(()))):
        if value not in get_args(Combine):
            raise where(("combine",), f"combine = {value!r}: expected {' or '.join(get_args(Combine))}")
    for name, kind, own in named(base["postprocess"]):
        _check_step(f"postprocess.{name}.", kind, own, space, where)
    return space


def _keys(base: Mapping[str, Any], sources: Sequence[str]) -> tuple[str, ...]:
    """List the keys that a space over the workflow may have."""
    keys = ["combine", *(f"{source}weight" for source in sources)] if len(sources) > 1 else []
    for name, kind, own in named(base["postprocess"]):
        use = () if STEPS[kind].makes_mask() else ("use",)  # without that step the chain would not end in a mask
        keys += [f"postprocess.{name}.{field}" for field in (*own, *use)]
    return tuple(keys)


def _refusal(key: str, sources: Sequence[str], allowed: Sequence[str]) -> str:
    if not key.startswith(tuple(sources)):
        return unknown_key(key, allowed)
    if key.endswith(".weight"):
        return f"{key}: the weight of the only source changes nothing"
    return f"{key}: detection is done once per source: list it as a second source instead, and vary the weights"


def _dimension(key: str, given: Any, where: Callable[[Key, str], InputError]) -> Dimension:
    if isinstance(given, list):
        if not given:
            raise where((key,), f"{key}: an empty list leaves nothing to choose from")
        return Choices(tuple(_json(given)))
    if not isinstance(given, Mapping):
        raise where((key,), f"{key}: expected {{low:, high:, step:}} or a list of values, found {given!r}")
    fields = ("low", "high", "step", "log", "integer")
    for field in given:
        if field not in fields:
            raise where((key, field), f"{key}: {unknown_key(field, fields)}")
    problem = _range_problem(given)
    if problem:
        raise where((key,), f"{key}: {problem}")
    log, integer = given.get("log", False), given.get("integer", False)
    return Range(given["low"], given["high"], given.get("step", 1 if integer and not log else None), log, integer)


def _range_problem(given: Mapping[str, Any]) -> str | None:
    log, integer = given.get("log", False), given.get("integer", False)
    for field in ("low", "high", *(("step",) if "step" in given else ())):
        number = given.get(field)
        kinds = int if integer is True else int | float
        if isinstance(number, bool) or not isinstance(number, kinds) or not math.isfinite(number):
            return f"{field} = {number!r}: expected {'a whole number' if integer is True else 'a number'}"
    if not isinstance(log, bool) or not isinstance(integer, bool):
        return f"log = {log!r}, integer = {integer!r}: expected true or false"
    low, high, step = given["low"], given["high"], given.get("step")
    if low >= high:
        return f"impossible range: low {low} is not below high {high}; a single value belongs into the workflow"
    if step is not None and not 0 < step <= high - low:
        return f"step {step}: expected a number above 0, up to the {round(high - low, DIGITS)} from low to high"
    if log and (step is not None or low <= 0):
        return f"log: takes no step ({step}) and a low above 0 ({low})"
    return None


def _ends(dimension: Dimension) -> tuple[Any, ...]:
    """Return the values to check against limits: all of a list, both ends of a range."""
    return dimension.values if isinstance(dimension, Choices) else (dimension.at(0), dimension.at(1))


def _check_step(
    prefix: str, kind: str, own: Mapping[str, Any], space: SearchSpace, where: Callable[[Key, str], InputError]
) -> None:
    """Refuse values that the step refuses, alone or together."""
    keys = [key for key in space.dimensions if key.startswith(prefix)]
    adapter: TypeAdapter[Any] = TypeAdapter(STEPS[kind])
    for values in itertools.product(*(_ends(space.dimensions[key]) for key in keys)):
        repaired = space.repair(dict(zip(keys, values, strict=True)))
        given = {key.removeprefix(prefix): value for key, value in repaired.items() if key.startswith(prefix)}
        use = given.pop("use", True)
        if not isinstance(use, bool):
            raise where((f"{prefix}use",), f"{prefix}use = {use!r}: expected true or false")
        try:
            problem = adapter.validate_json(json.dumps({**own, **given}), strict=True).problem()
        except ValidationError as error:
            first = error.errors()[0]
            key = f"{prefix}{first['loc'][0]}"
            hint = "; add integer: true, or list the values" if isinstance(space.dimensions.get(key), Range) else ""
            raise where((key,), f"{key} = {first['input']!r}: {first['msg'].lower()}{hint}") from None
        if problem and use and keys:
            raise where((keys[0],), f"{keys[0]}: {problem}; narrow it, or vary the other one as well")


def default_space(base: Mapping[str, Any]) -> SearchSpace:
    """Return the usual search ranges of the steps and sources of a workflow; its own value is always among choices.

    Parameters
    ----------
    base : mapping
        A complete workflow, :attr:`nx47dask.workflow.Workflow.resolved`.
    """
    dimensions: dict[str, Dimension] = {}
    if len(base["detect"]) > 1:
        dimensions |= {f"detect.{name}.weight": WEIGHTS for name, _, _ in named(base["detect"])}
    for name, kind, own in named(base["postprocess"]):
        ranges = STEPS[kind](**own).search()
        dimensions |= {f"postprocess.{name}.{field}": dimension for field, dimension in ranges.items()}
    return SearchSpace(dimensions)


def own_values(space: SearchSpace, base: Mapping[str, Any]) -> Candidate:
    """Return the base workflow itself as a candidate: every step in use, its own weights and values.

    A value need not lie in the space.
    """
    items = {(section, name): own for section in ("detect", "postprocess") for name, _, own in named(base[section])}
    own: Candidate = {}
    for key in space.dimensions:
        section, name, field = split_key(key)
        values = {"use": True, "weight": 1.0} | items[section, name] if section else base
        own[key] = _json(values[field])
    return own


def variant(base: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the workflow of a candidate, as a document that :func:`~nx47dask.workflow.load_workflow` reads.

    Parameters
    ----------
    base : mapping
        A complete workflow; it is not changed.
    candidate : mapping of str to Any
        Values to set. A source of weight 0 and a step with ``use`` False are left out.
    """
    document: dict[str, Any] = _json(base)
    document |= {key: _json(value) for key, value in candidate.items() if not split_key(key)[0]}
    for section in ("detect", "postprocess"):
        kept = []
        for name, kind, own in named(document[section]):
            prefix = f"{section}.{name}."
            own |= {key.removeprefix(prefix): _json(v) for key, v in candidate.items() if key.startswith(prefix)}
            if own.pop("use", True) and own.get("weight", 1) > 0:
                kept.append({kind: own})
        document[section] = kept
    return document


def _json(value: Any) -> Any:
    """Copy a value in JSON: tuples become lists."""
    return json.loads(json.dumps(value, default=str))
