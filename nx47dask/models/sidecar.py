"""Description of a model file that carries none itself: ``<name>.yaml`` beside ``<name>.pt2`` and the like."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from nx47dask.errors import InputError, ModelError
from nx47dask.files.documents import Document, read_document, unknown_key
from nx47dask.geometry import AXES, Placement
from nx47dask.kernels.normalisation import Normalisation
from nx47dask.models.base import Activation, ModelInfo, Values, half, hash_files

__all__ = ["Sidecar", "describe_file", "sidecar_path"]

Edge = Annotated[int, Field(ge=1)]

EXAMPLE = """\
  window_zyx: [64, 64, 64]
  classes: 2
  surface: 1
  activation: softmax
  normalisation: {scheme: zscore}"""


@dataclass(frozen=True)
class Sidecar:
    """Description of a model file, one field for each key of the YAML file beside it.

    Parameters
    ----------
    window_zyx : tuple of int
        Window that the network takes at once, in voxels.
    activation : {"sigmoid", "softmax", "none"}
        Function that turns the output into a probability; "none" when it is one already.
    normalisation : Normalisation
        Scaling of the grey values in training.
    classes : int
        Channels of the output.
    surface : int, optional
        Channel of the surface; not needed for one class.
    step_zyx : tuple of int, optional
        Step of the windows; half a window by default.
    placement : {"flush", "even"}
        Placement of the windows: the last flush with the edge, or all equally spaced.
    values : {"probability", "logit"}
        Terms in which overlapping windows are averaged.
    mirrors : list of {"z", "y", "x"}
        Axes along which the model saw mirrored volumes in training.
    factory : str, optional
        ``module:function`` that builds the network. Needed for safetensors, which holds weights only. An exported file
        of the same name beside it shares the description and ignores this key.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    window_zyx: tuple[Edge, Edge, Edge]
    activation: Activation
    normalisation: Normalisation
    classes: Edge = 1
    surface: Annotated[int, Field(ge=0)] | None = None
    step_zyx: tuple[Edge, Edge, Edge] | None = None
    placement: Placement = "flush"
    values: Values = "probability"
    mirrors: tuple[Literal["z", "y", "x"], ...] = ()
    factory: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None


def sidecar_path(model: Path) -> Path:
    """Return the path of the description of a model file."""
    return model.with_suffix(".yaml")


def describe_file(
    path: Path,
    kind: str,
    *,
    surface: int | str | None,
    companions: tuple[Path, ...] = (),
    weights_only: bool = False,
) -> ModelInfo:
    """Return the description of a model file, from the YAML file beside it.

    Parameters
    ----------
    path : Path
        The model file.
    kind : str
        Its format.
    surface : int, optional
        Channel of the surface, in place of what the description says.
    companions : tuple of Path
        Files beside it that also hold weights.
    weights_only : bool
        True for a file without a network: the description must name the ``factory`` that builds it.

    Raises
    ------
    ModelError
        There is no description, or it contradicts itself.
    InputError
        It is not YAML, or a key is unknown, missing or of the wrong kind; the message names the line.
    """
    document, sidecar = _read(path)
    if weights_only and sidecar.factory is None:
        message = f"factory is missing: {kind} holds weights only; name what builds the network, as module:function"
        raise document.error((), message)
    problem = _problem(sidecar, surface)
    if problem:
        raise ModelError(f"{document.path}: {problem}")
    return ModelInfo(
        path=path,
        format=kind,
        sha256=hash_files((path, *companions), path.parent),
        window_zyx=sidecar.window_zyx,
        step_zyx=sidecar.step_zyx or half(sidecar.window_zyx),
        placement=sidecar.placement,
        classes=sidecar.classes,
        surface=_surface(sidecar, surface),
        activation=sidecar.activation,
        normalisation=sidecar.normalisation,
        values=sidecar.values,
        mirrors=tuple(sorted(AXES.index(axis) for axis in set(sidecar.mirrors))),
        factory=sidecar.factory if weights_only else None,
    )


def _read(model: Path) -> tuple[Document, Sidecar]:
    path = sidecar_path(model)
    if not path.is_file():
        raise ModelError(
            f"{model}: its description {path.name} is missing beside it",
            hint=f"write one with what the model was trained with, for example:\n{EXAMPLE}",
        )
    document = read_document(path)
    if not isinstance(document.data, dict):
        raise document.error((), f"expected keys with values, for example:\n{EXAMPLE}")
    try:
        # Through JSON, strict is strict about types and still takes a list for a tuple.
        return document, TypeAdapter(Sidecar).validate_json(json.dumps(document.data, default=str), strict=True)
    except ValidationError as error:
        raise _readable(document, error.errors()[0]) from None


def _readable(document: Document, first: Any) -> InputError:
    where = tuple(first["loc"])
    name = ".".join(map(str, where))
    if first["type"] == "unexpected_keyword_argument":
        known = dataclasses.fields(Sidecar if len(where) == 1 else Normalisation)
        message = unknown_key(where[-1], [field.name for field in known])
    elif first["type"] in ("missing", "missing_argument"):
        message = f"{name} is missing; for example:\n{EXAMPLE}"
    else:
        message = f"{name} = {first['input']!r}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return document.error(where, message)


def _surface(sidecar: Sidecar, given: int | str | None) -> int:
    chosen = sidecar.surface if given is None else given
    return int(chosen or 0)


def _problem(sidecar: Sidecar, given: int | str | None) -> str | None:
    surface = sidecar.surface if given is None else given
    last = sidecar.classes - 1
    if surface is None and sidecar.classes > 1:
        return f"classes: {sidecar.classes}, but not which of them is the surface; add surface: 0 to {last}"
    if isinstance(surface, str) and not surface.isdigit():
        return f"surface {surface!r}: the classes of this model have numbers, 0 to {last}, no names"
    if surface is not None and not 0 <= int(surface) < sidecar.classes:
        return f"surface: {surface} is not one of the {sidecar.classes} classes, 0 to {last}"
    if sidecar.activation == "softmax" and sidecar.classes == 1:
        return "activation: softmax of one class is always 1; use sigmoid, or give classes"
    if sidecar.activation == "none" and sidecar.values == "logit":
        return "values: logit needs an output in logits, but activation: none says that it is a probability"
    if any(step > edge for step, edge in zip(sidecar.step_zyx or (), sidecar.window_zyx, strict=False)):
        return f"step_zyx: {sidecar.step_zyx} is larger than window_zyx {sidecar.window_zyx}: voxels would be left out"
    return None
