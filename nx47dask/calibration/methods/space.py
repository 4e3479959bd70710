"""What a calibration varies: the search space, its grid, and the workflow that a candidate stands for.

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

from nx47dask.calibration.methods.dimensions import DIGITS, Choices, Dimension, Range
from nx47dask.detectors import Combine
from nx47dask.errors import InputError
from nx47dask.files.documents import Key, unknown_key
from nx47dask.steps import STEPS

__all__ = [
    "Candidate",
    "Choices",
    "Dimension",
    "Range",
    "SearchSpace",
    "default_space",
    "named",
    "own_values",
    "space_from",
    "split_key",
    "variant",
]

Candidate = dict[str, Any]
RADII = ([1, 1, 1], [2, 1, 1], [2, 2, 2])
SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0)
HOLES = (None, 100, 1000)


@dataclass(frozen=True)
class SearchSpace:
    """Keys and what each may be.

    Parameters
    ----------
    dimensions : dict of str to Range or Choices
    all_sources : bool
        The weights of all sources are varied, so that one of them must stay above 0 and only their shares count.
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
        """Every candidate, repaired, once: the last key varies fastest, and a point that gives the masks of an earlier
        one (see :meth:`identity`) is left out.

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
        """The repaired candidate at a point of the unit cube, one coordinate per key in [0, 1]."""
        pairs = zip(self.dimensions.items(), shares, strict=True)
        return self.repair({key: dimension.at(float(share)) for (key, dimension), share in pairs})

    def repair(self, candidate: Mapping[str, Any]) -> Candidate:
        """A valid candidate: a high threshold below its low one is raised to it; weights that are all 0 become 1."""
        repaired = dict(candidate)
        for key, value in candidate.items():
            low = key.removesuffix(".high") + ".low"
            if key.endswith(".high") and low in candidate and candidate[low] > value:
                repaired[key] = candidate[low]
        if self.all_sources and not any(candidate.get(key) for key in self.weights):
            repaired |= dict.fromkeys(self.weights, 1.0)
        return repaired

    def complexity(self, candidate: Mapping[str, Any]) -> int:
        """Sources of a weight above 0 and steps in use, of those that the space varies.

        A step with ``use`` False, a smoothing of sigma 0 and a closing or opening of radius 0 do not count.
        """
        sources = sum(1 for key in self.weights if candidate[key] > 0)
        steps = {split_key(key)[1] for key in self.dimensions if key.startswith("postprocess.")}
        return sources + sum(self._acts(step, candidate) for step in steps)

    def identity(self, candidate: Mapping[str, Any]) -> str:
        """Text that is the same for candidates that cannot differ in a mask.

        Parameters of a step that is left out are not in it, and weights are shares of their sum.
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
        own = {split_key(key)[2]: candidate[key] for key in self.dimensions if split_key(key)[1] == step}
        return own.get("use", True) and all(
            any(own[extent]) for extent in ("sigma_zyx_vox", "radius_zyx_vox") if extent in own
        )


def split_key(key: str) -> tuple[str, str, str]:
    """Section, item and field of ``section.item.field``; a setting such as ``combine`` has no section and item."""
    section, _, rest = key.rpartition(".")[0].partition(".")
    return section, rest, key.rpartition(".")[2]


def named(items: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, kind and parameters of the items of ``detect`` or ``postprocess``: (closing#2, closing, {...})."""
    seen: dict[str, int] = {}
    found = []
    for item in items:
        ((written, parameters),) = item.items()
        kind = written.partition("#")[0]
        seen[kind] = seen.get(kind, 0) + 1
        found.append((kind if seen[kind] == 1 else f"{kind}#{seen[kind]}", kind, dict(parameters)))
    return found


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
    """Keys that a space over the workflow may have."""
    keys = ["combine", *(f"{source}weight" for source in sources)] if len(sources) > 1 else []
    for name, kind, own in named(base["postprocess"]):
        needed = STEPS[kind].takes != STEPS[kind].gives  # without it the chain would not end in a mask
        keys += [f"postprocess.{name}.{field}" for field in (*own, *(() if needed else ("use",)))]
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
    """The values that a limit can stop: all of a list, both ends of a range."""
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
    """Ranges that suit the steps and sources of a workflow; its own value is always among choices.

    Parameters
    ----------
    base : mapping
        A complete workflow, :attr:`nx47dask.workflow.Workflow.resolved`.
    """
    dimensions: dict[str, Dimension] = {}
    if len(base["detect"]) > 1:
        dimensions |= {f"detect.{name}.weight": Range(0, 1, 0.1) for name, _, _ in named(base["detect"])}
    for name, kind, own in named(base["postprocess"]):
        dimensions |= {f"postprocess.{name}.{field}": value for field, value in _usual(kind, own).items()}
    return SearchSpace(dimensions)


def _usual(kind: str, own: Mapping[str, Any]) -> dict[str, Dimension]:
    use: dict[str, Dimension] = {"use": Choices((True, False))}
    match kind:
        case "smooth":
            return {"sigma_zyx_vox": _with_own([[sigma] * 3 for sigma in SIGMAS], own["sigma_zyx_vox"])}
        case "threshold":
            return {"value": _thresholds(own["by"])}
        case "hysteresis":
            return {"low": _thresholds(own["by"]), "high": _thresholds(own["by"])}
        case "small_objects":
            return {"min_vox": Range(100, 20000, log=True, integer=True)}
        case "closing":
            return use | {"radius_zyx_vox": _with_own(RADII, own["radius_zyx_vox"])}
        case "fill_holes":
            return {"max_vox": _with_own(HOLES, own["max_vox"])}
        case "smooth_sheet":
            return use | {"sigma_vox": Range(1, 6, 0.5)}
        case "z_coherence" | "support" | "plug_pinholes" | "patch_holes" | "thin" | "thicken" | "clear_border":
            return use
    return {}


def _thresholds(by: str) -> Range:
    return Range(0.2, 0.9, 0.05) if by == "value" else Range(0.75, 0.97, 0.01)


def _with_own(values: Sequence[Any], own: Any) -> Choices:
    own = list(own) if isinstance(own, tuple) else own
    return Choices((*values, *(() if own in values else (own,))))


def own_values(space: SearchSpace, base: Mapping[str, Any]) -> Candidate:
    """The candidate that is the base workflow itself: every step in use, its own weights and values.

    A value need not lie in the space.
    """
    items = {
        (section, name): parameters
        for section in ("detect", "postprocess")
        for name, _, parameters in named(base[section])
    }
    own: Candidate = {}
    for key in space.dimensions:
        section, name, field = split_key(key)
        parameters = {"use": True, "weight": 1.0} | items[section, name] if section else base
        own[key] = _json(parameters[field])
    return own


def variant(base: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow of a candidate, as a document that :func:`~nx47dask.workflow.load_workflow` reads.

    Parameters
    ----------
    base : mapping
        A complete workflow; left as it is.
    candidate : mapping of str to Any
        Values to set. A source of weight 0 and a step with ``use`` False are left out.
    """
    document: dict[str, Any] = _json(base)
    document |= {key: _json(value) for key, value in candidate.items() if not split_key(key)[0]}
    for section in ("detect", "postprocess"):
        kept = []
        for name, kind, parameters in named(document[section]):
            prefix = f"{section}.{name}."
            parameters |= {key.removeprefix(prefix): _json(v) for key, v in candidate.items() if key.startswith(prefix)}
            if parameters.pop("use", True) and parameters.get("weight", 1) > 0:
                kept.append({kind: parameters})
        document[section] = kept
    return document


def _json(value: Any) -> Any:
    """A copy in JSON values: tuples become lists."""
    return json.loads(json.dumps(value, default=str))
