"""The network that the plans of an nnU-Net name: its class, its layers, and the names that need no trust.

Plans name classes by their import path. Whoever resolves any path and calls what it finds runs what the plans say, so
only the names of two closed lists are resolved without trust: layers of torch.nn, and the networks and blocks of
``dynamic_network_architectures``. A name is compared as text; nothing is imported to judge it.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nx47dask.errors import ModelError
from nx47dask.models.base import require_trust

if TYPE_CHECKING:
    from torch import nn

__all__ = ["KNOWN_LAYERS", "KNOWN_NETWORKS", "build_network", "network_of", "require_known_names"]

Json = Mapping[str, Any]

_LAYERS = {
    "conv": "Conv2d Conv3d ConvTranspose2d ConvTranspose3d",
    "instancenorm": "InstanceNorm2d InstanceNorm3d",
    "batchnorm": "BatchNorm2d BatchNorm3d",
    "normalization": "GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "activation": "CELU ELU GELU Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU ReLU ReLU6 RReLU SELU "
    "SiLU Sigmoid Softplus Softsign Tanh",
    "dropout": "AlphaDropout Dropout Dropout2d Dropout3d FeatureAlphaDropout",
    "linear": "Identity",
    "pooling": "AvgPool2d AvgPool3d MaxPool2d MaxPool3d",
}
_BLOCKS = (
    "dynamic_network_architectures.building_blocks.residual.BasicBlockD",
    "dynamic_network_architectures.building_blocks.residual.BottleneckD",
    "dynamic_network_architectures.building_blocks.patch_encode_decode.LayerNormNd",
)

KNOWN_LAYERS = frozenset(
    itertools.chain(
        _BLOCKS,
        *(
            (f"torch.nn.{name}", f"torch.nn.modules.{module}.{name}")
            for module, names in _LAYERS.items()
            for name in names.split()
        ),
    )
)
"""Layers and blocks that plans may name without trust."""

KNOWN_NETWORKS = frozenset(
    f"dynamic_network_architectures.architectures.{name}"
    for name in (
        "unet.PlainConvUNet",
        "unet.ResidualEncoderUNet",
        "unet.ResidualUNet",
        "primus.Primus",
        *(f"primus.Primus{version}{size}" for version in ("", "V2", "V3") for size in "XSBML"),
        "primus.PrimusV2",
        "primus.PrimusV3",
    )
)
"""Networks that plans may name without trust."""


def network_of(path: Path, configuration: Json) -> Json:
    """Return class and arguments of the network; plans of before nnU-Net 2.4 spell them in other words.

    Raises
    ------
    ModelError
        The configuration names no network, or what it says of it is not of the right kind.
    """
    if "architecture" not in configuration:
        return _of_old_plans(path, configuration)
    architecture = configuration["architecture"]
    kinds = {"network_class_name": str, "arch_kwargs": dict, "_kw_requires_import": list}
    for key, kind in kinds.items():
        value = architecture.get(key) if isinstance(architecture, Mapping) else None
        if not isinstance(value, kind):
            raise ModelError(
                f"{path / 'plans.json'}: architecture.{key} is {value!r}, expected a {kind.__name__}",
                hint="copy plans.json from where the model was trained",
            )
    for key in architecture["_kw_requires_import"]:
        if not isinstance(key, str) or key not in architecture["arch_kwargs"]:
            raise ModelError(
                f"{path / 'plans.json'}: _kw_requires_import lists {key!r}, which arch_kwargs does not have",
                hint="copy plans.json from where the model was trained",
            )
    return dict(architecture)


def _of_old_plans(path: Path, configuration: Json) -> Json:
    name = configuration.get("UNet_class_name")
    if name not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise ModelError(f"{path}: plans.json names no network that is known here (UNet_class_name {name!r})")
    blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    stages = len(configuration["n_conv_per_stage_encoder"])
    width, widest = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(width * 2**stage, widest) for stage in range(stages)],
            "conv_op": "torch.nn.Conv3d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            blocks: configuration["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "torch.nn.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }


def require_known_names(path: Path, architecture: Json) -> None:
    """Refuse a network whose plans name something that is on neither list.

    Raises
    ------
    ModelError
        With the key, the name and how to trust the model.
    """
    where, network = path / "plans.json", architecture["network_class_name"]
    if network not in KNOWN_NETWORKS:
        require_trust(where, f"network_class_name: its network is {network}", trust=False)
    for key, name in _layers(architecture).items():
        if not isinstance(name, str) or name not in KNOWN_LAYERS:
            require_trust(where, f"{key}: its layer is {name}", trust=False)


def build_network(path: Path, architecture: Json, *, classes: int, trust: bool) -> nn.Module:
    """Build the network of the plans, with random weights and without deep supervision.

    Parameters
    ----------
    path : Path
        Folder of the model, for messages.
    architecture : mapping
        As :func:`network_of` returns it.
    classes : int
        Channels of the output.
    trust : bool
        Import and call whatever the plans name.

    Raises
    ------
    ModelError
        A name is not known and not trusted or cannot be imported, or the arguments do not fit the network.
    """
    if not trust:
        require_known_names(path, architecture)
    arguments = dict(architecture["arch_kwargs"])
    arguments |= {key: _locate(path, name) for key, name in _layers(architecture).items()}
    arguments |= {"input_channels": 1, "num_classes": classes, "deep_supervision": False}
    network_class = _locate(path, architecture["network_class_name"])
    try:
        network: nn.Module = network_class(**arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, LookupError, ArithmeticError) as error:
        name = architecture["network_class_name"]
        raise ModelError(f"{path / 'plans.json'}: {name} cannot be built from its arch_kwargs ({error})") from error
    return network


def _layers(architecture: Json) -> dict[str, Any]:
    """The arguments that are import paths. All others stay what JSON knows: numbers, strings, lists and the like."""
    arguments = architecture["arch_kwargs"]
    return {key: arguments[key] for key in architecture["_kw_requires_import"] if arguments[key] is not None}


def _locate(path: Path, name: Any) -> Any:
    module, _, attribute = str(name).rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"{path}: its network needs {name}, which cannot be imported ({error})",
            hint="pip install 'nx47dask[nnunet]', or the package that the model was trained with",
        ) from error
