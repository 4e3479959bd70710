"""Description of a trained network, and the interface of the formats that it is read from."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from nx47dask.errors import ModelError
from nx47dask.files.atomic import sha256_file
from nx47dask.geometry import Index, Placement
from nx47dask.kernels.normalisation import Normalisation

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "FORMATS",
    "Activation",
    "ModelFormat",
    "ModelInfo",
    "OnnxNetwork",
    "Values",
    "check_hash",
    "default_model_path",
    "describe_model",
    "fit_weights",
    "half",
    "hash_files",
    "load_networks",
    "require_trust",
    "sources",
]

Activation = Literal["sigmoid", "softmax", "none"]
Values = Literal["probability", "logit"]

DEFAULT_MODEL = "surface"
"""Name of the model that comes with the package, given in place of a path."""

FORMATS = {
    "nnunet": "nx47dask.models.nnunet",
    "torch_export": "nx47dask.models.torch_export",
    "torchscript": "nx47dask.models.torchscript",
    "safetensors": "nx47dask.models.safetensors_file",
    "onnx": "nx47dask.models.onnx_file",
}
"""Model formats, each with its module, a :class:`ModelFormat`. The first that recognises a path reads it."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a model, without its weights: small, picklable, the same on every worker.

    Attributes
    ----------
    path : Path
        Absolute path of the file, or of the folder of an nnU-Net.
    format : str
        One of :data:`FORMATS`.
    sha256 : str
        Checksum of the weights and of the files beside them that define the network, in a fixed order.
    window_zyx : tuple of int
        Window that the network takes at once, in voxels.
    step_zyx : tuple of int
        Step of the window lattice in voxels, unless a workflow says otherwise.
    placement : {"flush", "even"}
        Placement of the windows: the last flush with the edge of the volume, or all equally spaced, as nnU-Net does.
    classes : int
        Channels of the output.
    surface : int
        Channel of the surface.
    activation : {"sigmoid", "softmax", "none"}
        Function that turns the output into a probability; "none" when it is one already.
    normalisation : Normalisation
        Scaling of the grey values in training.
    values : {"probability", "logit"}
        Terms in which overlapping windows, mirrored variants and members are averaged.
    mirrors : tuple of int
        Axes (0, 1, 2 for Z, Y, X) along which the model saw mirrored volumes in training; every combination of them is
        a variant for test-time augmentation.
    members : int
        Networks whose outputs are averaged: the folds of an nnU-Net.
    factory : str or None
        ``module:function`` that builds the network (safetensors).
    notes : tuple of str
        Assumptions about a volume, in sentences.
    """

    path: Path
    format: str
    sha256: str
    window_zyx: Index
    step_zyx: Index
    placement: Placement
    classes: int
    surface: int
    activation: Activation
    normalisation: Normalisation
    values: Values = "probability"
    mirrors: tuple[int, ...] = ()
    members: int = 1
    factory: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Short name of the model for messages and tables."""
        return self.path.name if self.format == "nnunet" else self.path.stem

    def to_json(self) -> dict[str, Any]:
        """Return every field as plain data, for the plan and the manifest."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """Path of an ONNX file, for the backends that read such files themselves.

    Attributes
    ----------
    path : Path
    """

    path: Path


class ModelFormat(Protocol):
    """Interface of the module of a model format."""

    SOURCE: str
    """Kind of file or folder that a person gives, in words: ``a .pt2 file``."""

    def recognises(self, path: Path) -> bool:
        """Return True for a file or folder of this format, told by its name and place alone."""
        ...

    def describe(self, path: Path, *, trust: bool, surface: int | str | None) -> ModelInfo:
        """Read the metadata of a model."""
        ...

    def load(self, info: ModelInfo, *, trust: bool) -> Sequence[nn.Module | OnnxNetwork]:
        """Load the networks of a model, one for each member."""
        ...


def describe_model(path: str | Path, *, trust: bool = False, surface: int | str | None = None) -> ModelInfo:
    """Describe a model from its files. Its weights are hashed, not kept in memory.

    Parameters
    ----------
    path : str or Path
        ``surface``, the model that comes with the package; or a file or folder of one of :data:`FORMATS`. A file needs
        its description beside it.
    trust : bool
        Load pickles and import code that a model names. Both can run anything: only for a model whose origin you know.
    surface : int or str, optional
        Class of the surface by number or, for an nnU-Net, by label name. Needed where the model does not say it.

    Returns
    -------
    ModelInfo

    Raises
    ------
    ModelError
        There is no such model, or something is missing, unsupported or not trusted; the message says what to add.
    InputError
        A file of the model is not valid YAML or JSON.
    """
    source = default_model_path() if str(path) == DEFAULT_MODEL else Path(path)
    if not source.exists():
        raise ModelError(
            f"{source}: no such model", hint=f"give {DEFAULT_MODEL!r} (it comes with the package), {sources()}"
        )
    source = source.resolve()
    for name in FORMATS:
        if _module(name).recognises(source):
            return _module(name).describe(source, trust=trust, surface=surface)
    raise ModelError(f"{source}: {_unknown(source)}; expected {sources()}")


def load_networks(info: ModelInfo, *, trust: bool = False) -> list[nn.Module | OnnxNetwork]:
    """Load the networks of a model into memory.

    Parameters
    ----------
    info : ModelInfo
    trust : bool
        As in :func:`describe_model`.

    Returns
    -------
    list of torch.nn.Module
        One network for each member, on the CPU, in float32 and in evaluation mode, from (B, 1, Z, Y, X) to
        (B, classes, Z, Y, X). For ONNX a list with one :class:`OnnxNetwork`, which a backend opens itself.

    Raises
    ------
    ModelError
        The files are not those of the description, are not trusted, or do not fit the network.
    """
    try:
        return list(_module(info.format).load(info, trust=trust))
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename}: missing on this machine, though the model in {info.path} was there when it was "
            "described",
            hint="every worker must see it under that path",
        ) from error


def sources() -> str:
    """Return the kinds of files and folders that can be models, in words."""
    *first, last = (_module(name).SOURCE for name in FORMATS)
    return f"{', '.join(first)} or {last}"


def default_model_path() -> Path:
    """Return the path of the model that comes with the package."""
    return Path(__file__).with_name("weights") / f"{DEFAULT_MODEL}.safetensors"


def hash_files(files: Sequence[Path], folder: Path) -> str:
    """Return the SHA-256 of one file, or of the names (relative to ``folder``) and checksums of several, in order."""
    if len(files) == 1:
        return sha256_file(files[0])
    lines = "".join(f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def check_hash(info: ModelInfo, sha256: str) -> None:
    """Refuse weights that are not those of the description.

    Raises
    ------
    ModelError
        The checksums differ; the message gives both.
    """
    if sha256 != info.sha256:
        raise ModelError(
            f"{info.path}: the weights changed since the model was described: SHA-256 {info.sha256} then, {sha256} now",
            hint="start the run again with --overwrite, or put the old weights back",
        )


def fit_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a network and put it into evaluation mode.

    Raises
    ------
    ModelError
        Names or shapes differ; the message gives the first of them.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ModelError(f"{path}: the weights do not fit the network {type(network).__name__}: {lines[1]}") from error
    network.eval().requires_grad_(False)


def require_trust(path: Path, why: str, *, trust: bool) -> None:
    """Refuse a model that can run any code when it is loaded, unless it is trusted.

    Raises
    ------
    ModelError
        It is not trusted; the message says what would run.
    """
    if not trust:
        raise ModelError(
            f"{path}: {why}, which can run any code",
            hint="if you know where the model comes from, load it with --trust (trust: true in a workflow)",
        )


def half(window_zyx: Index) -> Index:
    """Return half a window, the usual step, at least 1 voxel along each axis."""
    z, y, x = (max(1, edge // 2) for edge in window_zyx)
    return z, y, x


def _module(name: str) -> ModelFormat:
    return cast("ModelFormat", importlib.import_module(FORMATS[name]))


def _unknown(path: Path) -> str:
    if path.is_dir():
        return "a folder without plans.json and dataset.json, so not the folder of a trained nnU-Net"
    if path.name.startswith("checkpoint_"):
        return f"a checkpoint of an nnU-Net; give the folder that holds plans.json ({path.parent.parent})"
    if path.suffix in {".pth", ".ckpt", ".bin", ".pkl"}:
        return "a pickle, which runs code when it is loaded; save its state_dict with safetensors.torch.save_file"
    return f"unknown kind of model {path.suffix or path.name!r}"
