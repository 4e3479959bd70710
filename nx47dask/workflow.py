"""Workflow files: detectors and post-processing steps with their parameters.

A workflow is a short YAML file with two lists and a few settings beside them::

    detect:
      - learned: {model: surface, weight: 0.7}
      - sheetness: {weight: 0.3}
    combine: logit
    postprocess:
      - hysteresis: {low: 0.4, high: 0.6}
      - fill_holes

The keys are those of :data:`nx47dask.detectors.DETECTORS`, :data:`nx47dask.steps.STEPS` and :class:`Settings`. The
parameters of a step and their limits are read from its class.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from nx47dask.detectors import DETECTORS, Combine, Fusion, Learned, RadiusDetector, ResidualBand
from nx47dask.errors import InputError, WorkflowError
from nx47dask.files.documents import Document, Key, read_document, unknown_key
from nx47dask.files.presets import preset_names, preset_path
from nx47dask.models.backends import Device
from nx47dask.steps import STEPS
from nx47dask.steps.parameters import Unit
from nx47dask.steps.passes import NamedStep, compile_passes

__all__ = ["DEFAULT_WORKFLOW", "Settings", "Workflow", "load_workflow", "workflow_of"]

DEFAULT_WORKFLOW = "surface"


Weighted = tuple[tuple[float, RadiusDetector | Learned], ...]
"""Sources of the surface probability with their weights."""


@dataclass(frozen=True)
class Settings:
    """Settings of a workflow file, beside its two lists.

    Parameters
    ----------
    combine : {"probability", "logit"}
        Terms in which several sources are averaged. Log-odds (``logit``) give a sure source more weight.
    probability : {"uint8", "uint16"}
        Number format of the stored probability: ``uint16`` takes twice the disk space and resolves high quantiles.
    detect_block : int or null
        Longest edge of a block of detection, rounded down to whole work blocks, at least one. Lower it where a learned
        source takes too much memory; the result stays the same. Null takes as much as memory allows for learned
        sources, the work block for others.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    combine: Combine = "probability"
    probability: Literal["uint8", "uint16"] = "uint8"
    detect_block: Annotated[Annotated[int, Field(ge=1)] | None, Unit("voxels")] = None


SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))


@dataclass(frozen=True)
class Workflow:
    """Workflow that was read from a file, checked and completed with defaults.

    Attributes
    ----------
    name : str
        Name of the preset or file.
    sources : tuple of (float, RadiusDetector or Learned), or ResidualBand
        Sources of the surface probability, with their weights; or the frozen baseline, which gives a mask.
    settings : Settings
    steps : tuple of NamedStep
        Post-processing steps, in order.
    resolved : dict
        Every parameter with its value, as in the manifest.
    """

    name: str
    sources: Weighted | ResidualBand
    settings: Settings
    steps: tuple[NamedStep, ...]
    resolved: dict[str, Any]

    @property
    def revisions(self) -> dict[str, int]:
        """Revision of every algorithm of the workflow. Revisions and parameters decide the bits of its results.

        Examples
        --------
        >>> load_workflow("fast").revisions
        {'sheetness': 1, 'fusion': 1, 'hysteresis': 1, 'small_objects': 1, 'fill_holes': 1}
        """
        named = [_kind(str(next(iter(item)))) for item in self.resolved["detect"]]
        if isinstance(self.sources, ResidualBand):
            revisions = dict.fromkeys(named, self.sources.revision)
        else:
            of_sources = (source.revision for _, source in self.sources)
            revisions = {**dict(zip(named, of_sources, strict=True)), "fusion": Fusion.revision}
        return revisions | {_kind(named.name): named.step.revision for named in self.steps}

    def bind_detector(self, device: Device | None = None) -> Fusion | ResidualBand:
        """Return the source of the surface probability, with the models and runtimes of learned sources.

        Parameters
        ----------
        device : {"cpu", "cuda"}, optional
            Device to take for ``device: auto`` of a network. By default it is CUDA where this machine has it.

        Raises
        ------
        ModelError
            A model or its runtime is not there.
        """
        if isinstance(self.sources, ResidualBand):
            return self.sources
        bound = tuple(
            (weight, source.bind(device) if isinstance(source, Learned) else source) for weight, source in self.sources
        )
        return Fusion(bound, self.settings.combine)


def load_workflow(source: str | Path = DEFAULT_WORKFLOW, overrides: Sequence[str] = ()) -> Workflow:
    """Read a preset or a workflow file and apply overrides.

    Parameters
    ----------
    source : str or Path
        Name of a preset, or path of a YAML file.
    overrides : sequence of str
        ``KEY=VALUE``, e.g. ``postprocess.hysteresis.high=0.9``; the second closing is ``closing#2``.

    Raises
    ------
    WorkflowError
        The file is missing or not YAML, a key is unknown, or a value is of the wrong type or out of range; the message
        names the line, the key and what is allowed.

    Examples
    --------
    >>> workflow = load_workflow("fast", ["postprocess.small_objects.min_vox=500"])
    >>> [named.name for named in workflow.steps]
    ['hysteresis', 'small_objects', 'fill_holes']
    >>> workflow.steps[1].step.min_vox
    500
    """
    path = _find(source)
    try:
        document = _Draft(read_document(path))
    except InputError as error:
        raise WorkflowError(error.message, hint=error.hint) from error
    return _workflow(document, overrides)


def workflow_of(data: Mapping[str, Any], name: str) -> Workflow:
    """Make a workflow from the data of a workflow file or of :attr:`Workflow.resolved`, unchanged or with new values.

    Raises
    ------
    WorkflowError
        As from :func:`load_workflow`; the message begins with ``name`` as if it were a file.
    """
    return _workflow(_Draft(Document(Path(f"{name}.yaml"), json.loads(json.dumps(data)), None)), ())


def _workflow(document: _Draft, overrides: Sequence[str]) -> Workflow:
    path = document.path
    document.check_keys((), document.data, ("description", "detect", "postprocess", *SETTINGS))
    for override in overrides:
        document.override(override)
    settings: Settings = document.validate((), Settings, {k: v for k, v in document.data.items() if k in SETTINGS})
    sources = document.parse("detect", DETECTORS, extra=("weight",))
    for number, (name, source, _) in enumerate(sources):
        problem = source.problem() if isinstance(source, Learned) else None
        if problem:
            raise document.error(("detect", number, name), f"{name}: {problem}")
    steps = tuple(NamedStep(name, step) for name, step, _ in document.parse("postprocess", STEPS))
    for number, named in enumerate(steps):
        problem = named.step.problem()
        if problem:
            raise document.error(("postprocess", number), f"{named.name}: {problem}")
    try:
        compile_passes(steps)
    except WorkflowError as error:
        raise error.at(str(path)) from error
    resolved = {
        "detect": [{name: dataclasses.asdict(source) | extra} for name, source, extra in sources],
        **dataclasses.asdict(settings),
        "postprocess": [{named.name: dataclasses.asdict(named.step)} for named in steps],
    }
    return Workflow(path.stem, _weighted(document, sources), settings, steps, resolved)


def _weighted(document: _Draft, sources: list[tuple[str, Any, dict[str, Any]]]) -> Weighted | ResidualBand:
    for number, (name, source, extra) in enumerate(sources):
        if isinstance(source, ResidualBand):
            if extra:
                message = f"{name}: unknown key 'weight': it gives a mask, which has no weight"
                raise document.error(("detect", number, name, "weight"), message)
            if len(sources) > 1:
                raise document.error(("detect",), f"{name} gives a mask, not a probability: it stands alone")
            return source
    weighted: list[tuple[float, RadiusDetector | Learned]] = []
    for number, (name, source, extra) in enumerate(sources):
        weight = extra.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise document.error(("detect", number, name, "weight"), f"weight {weight!r}: expected a number above 0")
        weighted.append((float(weight), source))
    return tuple(weighted)


class _Draft:
    """Workflow file while it is read, with the overrides of the command line."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.path = document.path
        self.data = document.data
        self.overridden: dict[Key, str] = {}

    def error(self, where: Key, message: str) -> WorkflowError:
        """Return an error at a key, with its line in the file or the override that set it."""
        for length in range(len(where), -1, -1):
            if where[:length] in self.overridden:
                return _refused(self.overridden[where[:length]], message)
        return WorkflowError(self.document.error(where, message).message)

    def check_keys(self, where: Key, data: Any, allowed: Sequence[str]) -> None:
        """Refuse anything but a mapping with known keys."""
        if not isinstance(data, Mapping):
            raise self.error(where, f"expected keys ({', '.join(allowed)}), found {_show(data)}")
        for key in data:
            if key not in allowed:
                raise self.error((*where, key), unknown_key(key, allowed))

    def parse(
        self, section: str, registry: Mapping[str, type], extra: tuple[str, ...] = ()
    ) -> list[tuple[str, Any, dict[str, Any]]]:
        """Return the items of a section as (name, instance, extra values)."""
        items = self.data.get(section)
        if not isinstance(items, list) or not items:
            raise self.error((section,), f"{section}: expected a list of {', '.join(registry)}; found {_show(items)}")
        parsed: list[tuple[str, Any, dict[str, Any]]] = []
        for number, (item, name) in enumerate(zip(items, _names(items), strict=True)):
            where: Key = (section, number)
            key, parameters = _entry(item)
            if key is None or not isinstance(parameters, Mapping):
                raise self.error(where, f"{section}: expected one name with its parameters, found {_show(item)}")
            kind = _kind(name)
            if kind not in registry or key not in (kind, name):
                raise self.error((*where, key), unknown_key(key, tuple(registry)))
            own = {k: v for k, v in parameters.items() if k not in extra}
            parsed.append(
                (
                    name,
                    self.validate((*where, key), registry[kind], own),
                    {k: v for k, v in parameters.items() if k in extra},
                )
            )
        return parsed

    def override(self, text: str) -> None:
        """Set one value from ``section.item.key=value``, or a setting from ``key=value``."""
        key, equals, value = text.partition("=")
        parts = key.split(".")
        if equals and key in SETTINGS:
            self.data[key] = _yaml_value(text, value)
            self.overridden[(key,)] = text
            return
        if not equals or len(parts) != 3 or parts[0] not in ("detect", "postprocess"):
            raise WorkflowError(
                f"override {text}: expected SECTION.ITEM.KEY=VALUE, or KEY=VALUE of {', '.join(SETTINGS)}",
                hint="write it such as --set postprocess.hysteresis.high=0.9",
            )
        section, item, field = parts
        items = self.data.get(section)
        if not isinstance(items, list):
            raise _refused(text, f"{self.path} has no list {section}")
        names = _names(items)
        if item not in names:
            raise _refused(text, f"{unknown_key(item, names)}, in {section} of {self.path}")
        number = names.index(item)
        name, parameters = _entry(items[number])
        if not isinstance(parameters, Mapping):
            raise self.error((section, number), f"{item}: expected parameters, found {_show(parameters)}")
        items[number] = {name: {**parameters, field: _yaml_value(text, value)}}
        self.overridden[section, number, str(name), field] = text

    def validate(self, where: Key, kind: type, parameters: Mapping[str, Any]) -> Any:
        """Make an instance of a dataclass from parameters, strictly of their types and within their limits."""
        within = f"{where[-1]}." if where else ""
        try:
            # Through JSON, strict is strict about types and still takes a list for a tuple and 1 for 1.0.
            return TypeAdapter(kind).validate_json(json.dumps(dict(parameters), default=str), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0]) if first["loc"] else ""
            if first["type"] == "unexpected_keyword_argument":
                known = [f.name for f in dataclasses.fields(kind)]
                raise self.error((*where, field), f"{where[-1]}: {unknown_key(field, known)}") from None
            raise self.error(
                (*where, field), f"{within}{field} = {_show(first['input'])}: {_lower(first['msg'])}"
            ) from None


def _refused(override: str, problem: str) -> WorkflowError:
    return WorkflowError(f"override {override}: {problem}", hint="correct this --set")


def _yaml_value(text: str, value: str) -> Any:
    """Parse the value of an override."""
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise _refused(text, f"{value!r} is not a YAML value") from error


def _entry(item: Any) -> tuple[str | None, Any]:
    """Return name and parameters of a list item, ``name`` or ``name: {...}``; (None, None) for another form."""
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, parameters),) = item.items()
        return str(name), {} if parameters is None else parameters
    return None, None


def _kind(name: str) -> str:
    """Return the kind of an item: its name without the count."""
    return name.partition("#")[0]


def _names(items: Sequence[Any]) -> list[str]:
    """Return the names of list items; a repeated name gets its count (``closing#2``), as in a resolved workflow."""
    seen: dict[str, int] = {}
    names = []
    for item in items:
        name = _kind(str(_entry(item)[0]))
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def _find(source: str | Path) -> Path:
    if str(source) in preset_names():
        return preset_path(str(source))
    path = Path(source)
    if not path.is_file():
        raise WorkflowError(f"workflow {str(source)!r}: no such file, and no preset ({', '.join(preset_names())})")
    return path


def _show(value: Any) -> str:
    return "nothing" if value is None else repr(value)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
