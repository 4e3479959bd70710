"""Weights in safetensors files. The description beside them names the function that builds the network."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from nx47dask.errors import ModelError
from nx47dask.files.atomic import sha256_file
from nx47dask.models.base import ModelInfo, check_hash, fit_weights, require_trust
from nx47dask.models.sidecar import describe_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__all__ = ["KNOWN_FACTORIES", "SOURCE", "describe", "load", "recognises"]

SOURCE = "a .safetensors file"

KNOWN_FACTORIES = frozenset({"nx47dask.models.surface_unet:surface_unet"})
"""Functions that a description may name without trust."""


def recognises(path: Path) -> bool:
    """Return True for a file called ``.safetensors``."""
    return path.suffix == ".safetensors"


def describe(path: Path, *, trust: bool, surface: int | str | None) -> ModelInfo:
    """Read the description beside the file.

    Raises
    ------
    ModelError
        It is missing or contradicts itself, or names code that is not trusted.
    """
    info = describe_file(path, "safetensors", surface=surface, weights_only=True)
    _check_factory(info, trust=trust)
    return info


def load(info: ModelInfo, *, trust: bool) -> list[nn.Module]:
    """Build the network and load its weights.

    Raises
    ------
    ModelError
        The file changed or is damaged, the factory is not trusted or fails, or the weights do not fit the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_factory(info, trust=trust)
    check_hash(info, sha256_file(info.path))
    try:
        weights = load_file(info.path)
    except SafetensorError as error:
        raise ModelError(f"{info.path}: not a safetensors file, or damaged ({error})") from error
    network = _build(info)
    fit_weights(network, weights, info.path)
    return [network]


def _check_factory(info: ModelInfo, *, trust: bool) -> None:
    if info.factory not in KNOWN_FACTORIES:
        require_trust(info.path, f"its network is built by {info.factory}", trust=trust)


def _build(info: ModelInfo) -> nn.Module:
    from torch import nn

    module, _, function = str(info.factory).partition(":")
    try:
        network = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{info.path}: factory {info.factory} cannot be imported ({error})",
            hint="put its folder on PYTHONPATH, on every worker",
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{info.path}: factory {info.factory} gave a {type(network).__name__}, not a torch.nn.Module")
    return network
