"""ONNX files, with a description beside them. The backends that run ONNX read the file themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nx47dask.models.base import ModelInfo, OnnxNetwork, check_hash, hash_files
from nx47dask.models.sidecar import describe_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SOURCE", "describe", "load", "recognises"]

SOURCE = "an .onnx file"


def recognises(path: Path) -> bool:
    """Return True for a file called ``.onnx``."""
    return path.suffix == ".onnx"


def describe(path: Path, *, trust: bool, surface: int | str | None) -> ModelInfo:
    """Read the description beside the file.

    Raises
    ------
    ModelError
        It is missing or contradicts itself.
    """
    del trust  # a graph of operators, no code
    return describe_file(path, "onnx", surface=surface, companions=_external_data(path))


def load(info: ModelInfo, *, trust: bool) -> list[OnnxNetwork]:
    """Name the file for a backend that reads it.

    Raises
    ------
    ModelError
        The file changed since it was described.
    """
    del trust
    check_hash(info, hash_files((info.path, *_external_data(info.path)), info.path.parent))
    return [OnnxNetwork(info.path)]


def _external_data(path: Path) -> tuple[Path, ...]:
    """List the file of weights beside the graph, where torch.onnx.export puts it; one of another name is not hashed."""
    data = path.with_name(f"{path.name}.data")
    return (data,) if data.is_file() else ()
