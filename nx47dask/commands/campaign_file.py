"""Read the campaign file, which names runs on the same volumes, and summarise the measures of these runs.

A campaign is short YAML; paths are relative to it::

    volumes: [../test_images]
    labels: ../test_labels
    baseline: v61.1
    gates: score>=0,recall>=-0.01
    runs:
      v61.1: {workflow: v61.1}
      v61.2-low: {workflow: v61.2, set: [postprocess.hysteresis.low=0.84], repeat: 2}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from nx47dask.errors import InputError, WorkflowError
from nx47dask.files.documents import Document, Key, read_document, unknown_key
from nx47dask.files.presets import preset_names
from nx47dask.metrics.paired import as_dict
from nx47dask.reports.documents import AboutRun, AgainstBaseline, CampaignSummary, Extent
from nx47dask.runs.gates import Gate, check_gates, parse_gates
from nx47dask.runs.measures import NAMES, mean_measures, paired_measures
from nx47dask.workflow import load_workflow

__all__ = ["Campaign", "CampaignRun", "RunMeasures", "read_campaign", "summarise"]


@dataclass(frozen=True)
class CampaignRun:
    """A run of a campaign.

    Attributes
    ----------
    name : str
        Also its folder.
    workflow : str
        A preset, or the path of a YAML file.
    overrides : tuple of str
    repeat : int
        Number of times that it runs, to check that its masks are always the same bytes.
    """

    name: str
    workflow: str
    overrides: tuple[str, ...]
    repeat: int


@dataclass(frozen=True)
class Campaign:
    """A checked campaign file.

    Attributes
    ----------
    path : Path
        The file.
    volumes : tuple of Path
        Inputs of every run.
    labels : Path or None
        Folder of labels.
    baseline : str
        Name of one of the runs; or a frozen baseline or run folder, as it is written in the file.
    gates : str
        As for ``compare --gate``; empty without gates.
    runs : tuple of CampaignRun
    """

    path: Path
    volumes: tuple[Path, ...]
    labels: Path | None
    baseline: str
    gates: str
    runs: tuple[CampaignRun, ...]


class _RunKeys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    workflow: str
    overrides: list[str] = Field(default=[], alias="set")
    repeat: int = Field(default=1, ge=1)


_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _CampaignKeys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    volumes: list[str] = Field(min_length=1)
    labels: str | None = None
    baseline: str
    gates: str = ""
    runs: dict[_Name, _RunKeys] = Field(min_length=1)

    @field_validator("volumes", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


def read_campaign(path: Path) -> Campaign:
    """Read a campaign file, and check everything that can be checked without its volumes.

    Raises
    ------
    InputError
        The file cannot be read, a key is unknown, missing or of the wrong type, a path or preset does not exist, or a
        gate cannot be read; the message names the line.
    """
    document = read_document(path)
    keys = _validated(document)
    volumes = tuple(_existing(document, ("volumes", number), given) for number, given in enumerate(keys.volumes))
    labels = None if keys.labels is None else _existing(document, ("labels",), keys.labels)
    if keys.gates:
        try:
            parse_gates(keys.gates, scored=labels is not None)
        except InputError as error:
            hint = error.hint if labels else "name labels in this file, or gate what needs none"
            raise document.error(("gates",), error.message, hint=hint) from error
    runs = tuple(_run(document, name, run) for name, run in keys.runs.items())
    return Campaign(path, volumes, labels, keys.baseline, keys.gates, runs)


def _validated(document: Document) -> _CampaignKeys:
    try:
        return _CampaignKeys.model_validate(document.data)
    except ValidationError as error:
        errors = error.errors()
        # A misspelt key gives two errors, unknown and missing; the unknown key is the better message.
        first = next((problem for problem in errors if problem["type"] == "extra_forbidden"), errors[0])
        where = tuple(step for step in first["loc"] if step != "[key]")
        raise document.error(where, _problem(first["type"], where, first["input"], first["msg"])) from None


def _problem(kind: str, where: Key, given: Any, message: str) -> str:
    """Describe an error of pydantic in the words of the campaign file."""
    if kind == "extra_forbidden":
        return unknown_key(where[-1], _keys(where[:-1]))
    if kind == "missing":
        return f"key {where[-1]!r} is missing; keys: {', '.join(_keys(where[:-1]))}"
    value = "nothing" if given is None else repr(given)
    if kind == "model_type":
        return f"expected keys ({', '.join(_keys(where))}), found {value}"
    if kind == "string_pattern_mismatch":
        return f"run {value}: a name has letters, digits, '.', '_' and '-', and begins with a letter or digit"
    words = {
        "dict_type": "expected the names of runs, each with its keys",
        "string_type": "expected text; put it in quotes",
        "list_type": "expected a list, in square brackets",
        "too_short": "expected at least one",
    }
    return f"{'.'.join(map(str, where))} is {value}: {words.get(kind, message[:1].lower() + message[1:])}"


def _keys(where: Key) -> list[str]:
    """List the keys that a mapping of the file may have: a run, or the file itself."""
    fields = (_RunKeys if where else _CampaignKeys).model_fields
    return [given.alias or name for name, given in fields.items()]


def _existing(document: Document, where: Key, given: str) -> Path:
    path = document.path.parent / given
    if not path.exists():
        raise document.error(where, f"{path}: no such file or folder", hint="paths are relative to the campaign file")
    return path


def _run(document: Document, name: str, keys: _RunKeys) -> CampaignRun:
    preset = keys.workflow in preset_names()
    workflow = keys.workflow if preset else str(document.path.parent / keys.workflow)
    for key, overrides in (("workflow", ()), ("set", keys.overrides)):
        try:
            load_workflow(workflow, overrides)
        except WorkflowError as error:
            hint = error.hint if key == "workflow" else "correct it in this list"
            raise document.error(("runs", name, key), f"run {name}: {error.message}", hint=hint) from error
    return CampaignRun(name, workflow, tuple(keys.overrides), keys.repeat)


@dataclass(frozen=True)
class RunMeasures:
    """Measures of a run that a campaign compares.

    Attributes
    ----------
    volumes : dict
        Measures by volume, see :func:`~nx47dask.runs.measures.volume_measures`.
    about : AboutRun
        Other entries of the table: workflow and overrides, external scores, repeats.
    """

    volumes: dict[str, dict[str, float]]
    about: AboutRun

    @property
    def mean(self) -> dict[str, float]:
        """Means of the measures over the volumes."""
        return mean_measures(list(self.volumes.values()))


def summarise(runs: Mapping[str, RunMeasures], baseline: str, gates: str = "") -> CampaignSummary:
    """Compare all runs with the baseline, and with each other volume by volume.

    Parameters
    ----------
    runs : mapping of name to RunMeasures
        Runs over the same volumes, with the same measures; the baseline is one of them.
    baseline : str
    gates : str
        As for ``compare --gate``.

    Returns
    -------
    CampaignSummary
        A dict of JSON values.
    """
    against = runs[baseline]
    limits = parse_gates(gates, scored="score" in against.mean) if gates else []
    return {
        "baseline": baseline,
        "runs": {
            name: {
                **run.about,
                "mean": run.mean,
                **(AgainstBaseline() if name == baseline else _against(run, against, limits)),
                "volumes": run.volumes,
            }
            for name, run in runs.items()
        },
        "spread": _spread(runs) if len(runs) > 1 else {},
    }


def _against(run: RunMeasures, baseline: RunMeasures, gates: Sequence[Gate]) -> AgainstBaseline:
    paired = paired_measures(list(baseline.volumes.values()), [run.volumes[volume] for volume in baseline.volumes])
    return {
        "difference": {name: as_dict(difference) for name, difference in paired.items()},
        "gates": [result.as_dict() for result in check_gates(gates, baseline.mean, run.mean)],
    }


def _spread(runs: Mapping[str, RunMeasures]) -> dict[str, dict[str, Extent]]:
    """Find least and largest value of all runs, range and population standard deviation, by volume and measure."""
    volumes = next(iter(runs.values())).volumes
    return {
        volume: {
            name: _extent({run: measures.volumes[volume][name] for run, measures in runs.items()})
            for name in NAMES
            if name in volumes[volume]
        }
        for volume in volumes
    }


def _extent(values: Mapping[str, float]) -> Extent:
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return {
        "min": values[low],
        "min_run": low,
        "max": values[high],
        "max_run": high,
        "range": values[high] - values[low],
        "std": float(np.std(list(values.values()))),
    }
