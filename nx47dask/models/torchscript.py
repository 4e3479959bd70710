"""TorchScript files (``.pt``, ``.ts``), with a description beside them.

A TorchScript file is not a pickle of Python objects: torch's own interpreter runs the program in it. That interpreter
has operators that write files, so without trust the program may use operators of a list only, all of them on tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

from nx47dask.errors import ModelError
from nx47dask.files.atomic import sha256_file
from nx47dask.models.base import ModelInfo, check_hash, require_trust
from nx47dask.models.sidecar import describe_file
from nx47dask.models.torchscript_code import strange_operator, strange_word

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
        The file is a pickle or no model at all, its program needs trust, or its description is missing or contradicts
        itself.
    """
    _check_archive(path)
    info = describe_file(path, "torchscript", surface=surface)
    if not trust:
        _require_pure(path, strange_word(path))
    return info


def load(info: ModelInfo, *, trust: bool) -> list[nn.Module]:
    """Load the program.

    Raises
    ------
    ModelError
        The file changed, its program needs trust, or this version of torch cannot read it.
    """
    import torch

    check_hash(info, sha256_file(info.path))
    _check_archive(info.path)
    if not trust:
        _require_pure(info.path, strange_word(info.path))
    try:
        network: nn.Module = torch.jit.load(info.path, map_location="cpu")
    except RuntimeError as error:
        raise ModelError(f"{info.path}: torch {torch.__version__} cannot load it ({error})") from error
    if not trust:
        _require_pure(info.path, strange_operator(network))
    return [network.eval()]


def _require_pure(path: Path, strange: str | None) -> None:
    if strange is not None:
        require_trust(path, f"its program uses {strange}, more than plain tensor operators", trust=False)


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
