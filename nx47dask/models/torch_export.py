"""Networks saved with ``torch.export.save`` (``.pt2``), with a description beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from nx47dask.errors import ModelError
from nx47dask.files.atomic import sha256_file
from nx47dask.models.base import ModelInfo, check_hash, require_trust
from nx47dask.models.sidecar import describe_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__all__ = ["SOURCE", "describe", "load", "recognises"]

SOURCE = "a .pt2 file (torch.export)"

_WHY = "torch.export.load unpickles parts of the file"


def recognises(path: Path) -> bool:
    """Return True for a file called ``.pt2``."""
    return path.suffix == ".pt2"


def describe(path: Path, *, trust: bool, surface: int | str | None) -> ModelInfo:
    """Read the description beside the file.

    Raises
    ------
    ModelError
        It is missing or contradicts itself, or the file is not trusted.
    """
    info = describe_file(path, "torch_export", surface=surface)
    require_trust(path, _WHY, trust=trust)
    return info


def load(info: ModelInfo, *, trust: bool) -> list[nn.Module]:
    """Load the exported program; one that was exported for a batch of one takes its windows one by one.

    Raises
    ------
    ModelError
        The file changed, is not trusted or cannot be read, or was exported for another window or a larger batch.
    """
    import torch

    from nx47dask.models.wrappers import Exported

    require_trust(info.path, _WHY, trust=trust)
    check_hash(info, sha256_file(info.path))
    if not is_zipfile(info.path):
        raise ModelError(f"{info.path}: not a file that torch.export.save wrote")
    try:
        program = torch.export.load(info.path)
    except (AssertionError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{info.path}: torch {torch.__version__} cannot load it ({error})", hint="export it again"
        ) from error
    return [Exported(program.module(), one_by_one=_takes_one(info, program)).eval()]


def _takes_one(info: ModelInfo, program: Any) -> bool:
    """Return True for a program that is bound to a batch of one, False for one that takes any batch."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.name in names]
    if len(nodes) != 1 or len(nodes[0].meta["val"].shape) != 5:
        raise ModelError(f"{info.path}: expected one input (batch, 1, z, y, x), found {[str(name) for name in names]}")
    batch, channels, *window = nodes[0].meta["val"].shape
    expected = (1, *info.window_zyx)
    # A dynamic edge is a SymInt: any window fits.
    for edge, wanted in zip((channels, *window), expected, strict=True):
        if isinstance(edge, int) and edge != wanted:
            raise ModelError(
                f"{info.path}: exported for windows of {_sizes(channels, *window)} (channels, z, y, x), but "
                f"{_sizes(*expected)} is asked for",
                hint="set window_zyx to what it was exported for",
            )
    if isinstance(batch, int) and batch != 1:
        raise ModelError(
            f"{info.path}: exported for a batch of {batch}", hint="export it for 1, or for a dynamic batch"
        )
    return isinstance(batch, int)


def _sizes(*sizes: object) -> str:
    return " x ".join(map(str, sizes))
