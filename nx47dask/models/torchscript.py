"""TorchScript files (``.pt``, ``.ts``), with a description beside them.

A TorchScript file is not a pickle of Python objects. torch's own interpreter runs the program in it and knows only
tensors and torch's operators. That interpreter is no sandbox: take such files, too, only from people you know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

from nx47dask.errors import ModelError
from nx47dask.files.atomic import sha256_file
from nx47dask.models.base import ModelInfo, check_hash
from nx47dask.models.sidecar import describe_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__all__ = ["SOURCE", "describe", "load", "recognises"]

SOURCE = "a .pt or .ts file (TorchScript)"


def recognises(path: Path) -> bool:
    """Return True for a file called ``.pt``, ``.ts`` or ``.torchscript``."""
    return path.suffix in {".pt", ".ts", ".torchscript"}


def describe(path: Path, *, trust: bool, surface: int | str | None) -> ModelInfo:
    """Read the description beside the file.

    Raises
    ------
    ModelError
        The file is a pickle or no model at all, or its description is missing or contradicts itself.
    """
    del trust  # nothing here is a pickle
    _check_archive(path)
    return describe_file(path, "torchscript", surface=surface)


def load(info: ModelInfo, *, trust: bool) -> list[nn.Module]:
    """Load the program.

    Raises
    ------
    ModelError
        The file changed, or this version of torch cannot read it.
    """
    import torch

    del trust
    check_hash(info, sha256_file(info.path))
    _check_archive(info.path)
    try:
        network: nn.Module = torch.jit.load(info.path, map_location="cpu")
    except RuntimeError as error:
        raise ModelError(f"{info.path}: torch {torch.__version__} cannot load it ({error})") from error
    return [network.eval()]


def _check_archive(path: Path) -> None:
    if is_zipfile(path):
        with ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return
    raise ModelError(
        f"{path}: not a TorchScript file",
        hint=(
            "if torch.save wrote it, it is a pickle, which runs code when it is loaded: save its state_dict with "
            "safetensors.torch.save_file and name what builds the network in the description"
        ),
    )
