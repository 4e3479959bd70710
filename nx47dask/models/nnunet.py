"""Folders of trained nnU-Net v2 models: ``plans.json``, ``dataset.json``, ``fold_*/checkpoint_final.pth``.

Isensee et al. (2021), "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation". The
folder holds everything: architecture, window, normalisation, labels, mirrors. Building the network needs the package
``dynamic-network-architectures`` (the extra ``nnunet``), not nnU-Net itself. Inference follows nnU-Net too: windows
are equally spaced, at most half a window apart; logits are averaged over windows, mirrored variants and folds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nx47dask.errors import ModelError
from nx47dask.files.documents import read_json
from nx47dask.geometry import Index
from nx47dask.kernels.normalisation import Normalisation
from nx47dask.models.base import ModelInfo, check_hash, fit_weights, half, hash_files, require_trust
from nx47dask.models.nnunet_network import build_network, network_of, require_known_names

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SOURCE", "describe", "load", "recognises"]

SOURCE = "an nnU-Net v2 folder"

CHECKPOINT = "checkpoint_final.pth"
SURFACE_NAME = re.compile(r"surface|recto|papyrus", re.IGNORECASE)

Json = Mapping[str, Any]


def recognises(path: Path) -> bool:
    """Return True for a folder that holds the plans of an nnU-Net."""
    return (path / "plans.json").is_file()


def describe(path: Path, *, trust: bool, surface: int | str | None) -> ModelInfo:
    """Describe the model of a folder from its plans, its labels and its first checkpoint.

    Parameters
    ----------
    path : Path
        The folder ``<trainer>__<plans>__<configuration>``; its name does not matter.
    trust : bool
        Load checkpoints that are pickles.
    surface : int or str, optional
        Label of the surface, by channel or by name. Needed where there are several labels and none, or more than one,
        has "surface", "recto" or "papyrus" in its name.

    Raises
    ------
    ModelError
        Something is missing, or the model needs something that is not supported: several channels, a 2-D or cascaded
        configuration, resampling, an unknown normalisation.
    """
    plans, dataset = _read_plans(path), read_json(path / "dataset.json", _DATASET)
    _require(dataset, ("labels",), f"{path / 'dataset.json'}")
    _check_channels(path, dataset)
    checkpoints = _checkpoints(path)
    checkpoint = _read_checkpoint(checkpoints[0], trust=trust)
    configuration = _configuration(path, plans, checkpoint)
    architecture = network_of(path, configuration)
    if not trust:
        require_known_names(path, architecture)
    _check_spacing(path, plans, configuration)
    names, regions = _classes(dataset["labels"])
    order = tuple(plans.get("transpose_forward", (0, 1, 2)))
    mirrors = checkpoint.get("inference_allowed_mirroring_axes") or ()
    window_zyx = _in_volume_order(configuration["patch_size"], order)
    normalisation = _normalisation(path, plans, configuration)
    return ModelInfo(
        path=path,
        format="nnunet",
        sha256=_hash(path, checkpoints),
        window_zyx=window_zyx,
        step_zyx=half(window_zyx),
        placement="even",
        classes=len(names),
        surface=_surface(path, names, surface, regions=regions),
        activation="sigmoid" if regions else "softmax",
        normalisation=normalisation,
        values="logit",
        mirrors=tuple(sorted(order[axis] for axis in mirrors)),
        members=len(checkpoints),
        notes=_notes(configuration, normalisation),
    )


def load(info: ModelInfo, *, trust: bool) -> list[nn.Module]:
    """Load the networks of the folds, without deep supervision.

    Raises
    ------
    ModelError
        The files changed or are not trusted, the package ``dynamic-network-architectures`` is missing, or the weights
        do not fit the network of the plans.
    """
    from nx47dask.models.wrappers import Transposed

    plans, checkpoints = _read_plans(info.path), _checkpoints(info.path)
    check_hash(info, _hash(info.path, checkpoints))
    order = tuple(plans.get("transpose_forward", (0, 1, 2)))
    networks: list[nn.Module] = []
    for path in checkpoints:
        checkpoint = _read_checkpoint(path, trust=trust)
        architecture = network_of(info.path, _configuration(info.path, plans, checkpoint))
        network = build_network(info.path, architecture, classes=info.classes, trust=trust)
        fit_weights(network, checkpoint["network_weights"], path)
        networks.append(network if order == (0, 1, 2) else Transposed(network, order).eval())
    return networks


_DATASET = "dataset.json lies beside plans.json in the folder of a trained nnU-Net; copy it there"
_NEEDED = ("patch_size", "spacing", "normalization_schemes", "use_mask_for_norm")


def _read_plans(path: Path) -> Json:
    plans = read_json(path / "plans.json")
    _require(plans, ("configurations",), f"{path / 'plans.json'}: not of nnU-Net v2")
    return plans


def _require(data: Json, keys: Sequence[str], where: str) -> None:
    missing = [key for key in keys if data.get(key) is None]
    if missing:
        raise ModelError(f"{where}: it has no {', '.join(missing)}")


def _checkpoints(path: Path) -> list[Path]:
    """List the checkpoints of the numbered folds in order, or that of ``fold_all`` where there are none."""
    checkpoints = [fold / CHECKPOINT for fold in path.glob("fold_*") if (fold / CHECKPOINT).is_file()]
    numbered = [file for file in checkpoints if file.parent.name != "fold_all"]
    if not checkpoints:
        others = sorted(file.relative_to(path).as_posix() for file in path.glob("fold_*/*.pth"))
        hint = f"; found {', '.join(others)}: training has not ended, or the file has another name" if others else ""
        raise ModelError(f"{path}: no fold_*/{CHECKPOINT} in it{hint}")
    return sorted(numbered or checkpoints, key=lambda file: (len(file.parent.name), file.parent.name))


def _hash(path: Path, checkpoints: Sequence[Path]) -> str:
    return hash_files((path / "plans.json", path / "dataset.json", *checkpoints), path)


def _read_checkpoint(path: Path, *, trust: bool) -> Json:
    """Open a checkpoint; its weights stay on the disk until they are used."""
    from pickle import UnpicklingError

    import torch

    try:
        try:
            checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except UnpicklingError:
            require_trust(path, "a checkpoint with more than weights in it, so a pickle", trust=trust)
            checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    except (RuntimeError, EOFError, UnpicklingError, ImportError, AttributeError) as error:
        raise ModelError(f"{path}: damaged, or not a checkpoint of nnU-Net v2 ({error})") from error
    contents = dict(checkpoint)
    _require(contents, ("network_weights", "init_args"), f"{path}: not a checkpoint of nnU-Net v2")
    return contents


def _check_channels(path: Path, dataset: Json) -> None:
    channels = dataset.get("channel_names", dataset.get("modality", {"0": "scan"}))
    if len(channels) != 1:
        names = ", ".join(map(str, channels.values()))
        raise ModelError(f"{path}: trained on {len(channels)} channels ({names}); a scan has 1, and only that is fed")


def _configuration(path: Path, plans: Json, checkpoint: Json) -> Json:
    """Return the configuration that was trained, with the keys that it inherits."""
    name = checkpoint["init_args"]["configuration"]
    known = plans["configurations"]
    if name not in known:
        raise ModelError(f"{path}: trained as {name!r}, which plans.json does not have ({', '.join(known)})")
    configuration = _with_inherited(path, known, name)
    _require(configuration, _NEEDED, f"{path / 'plans.json'}, configuration {name!r}")
    if len(configuration["patch_size"]) != 3:
        raise ModelError(f"{path}: configuration {name!r} works on 2-D slices", hint="train 3d_fullres")
    if configuration.get("previous_stage"):
        raise ModelError(
            f"{path}: configuration {name!r} needs the output of {configuration['previous_stage']!r} as a second input",
            hint="train 3d_fullres",
        )
    return configuration


def _with_inherited(path: Path, known: Json, name: str) -> Json:
    configuration: dict[str, Any] = {}
    heirs: list[str] = []
    at: Any = name
    while at is not None:
        if at in heirs:
            raise ModelError(
                f"{path / 'plans.json'}: inherits_from goes round in a circle: {' -> '.join([*heirs, at])}",
                hint="copy plans.json from where the model was trained",
            )
        if not isinstance(at, str) or not isinstance(known.get(at), Mapping):
            heir = f"configuration {heirs[-1]!r} inherits from {at!r}" if heirs else f"configuration {at!r}"
            raise ModelError(f"{path / 'plans.json'}: {heir}, which is not a configuration ({', '.join(known)})")
        heirs.append(at)
        configuration = {**known[at], **configuration}
        at = known[at].get("inherits_from")
    return configuration


def _check_spacing(path: Path, plans: Json, configuration: Json) -> None:
    """Refuse what nnU-Net would resample: voxels of a scan are cubes, and the voxel size in a file is not reliable."""
    spacing = configuration["spacing"]
    scan = plans.get("original_median_spacing_after_transp", spacing)
    if max(spacing) > 1.001 * min(spacing):
        raise ModelError(f"{path}: trained on voxels of {spacing}, but those of a scan are cubes; nothing is resampled")
    if any(abs(a - b) > 1e-3 * b for a, b in zip(spacing, scan, strict=True)):
        raise ModelError(
            f"{path}: trained on volumes resampled from spacing {scan} to {spacing}, but nothing is resampled here",
            hint="train 3d_fullres",
        )


def _classes(labels: Json) -> tuple[list[str], bool]:
    """Return the names of the output channels, and True for regions (may overlap), False for labels (exclusive)."""
    used = {name: value for name, value in labels.items() if name != "ignore"}
    if any(isinstance(value, list) and len(value) > 1 for value in used.values()):
        return [name for name, value in used.items() if value not in (0, [0])], True
    number = {name: value[0] if isinstance(value, list) else int(value) for name, value in used.items()}
    return sorted(number, key=number.__getitem__), False


def _surface(path: Path, names: Sequence[str], given: int | str | None, *, regions: bool) -> int:
    foreground = range(0 if regions else 1, len(names))
    if given is not None:
        if str(given) in names:
            return names.index(str(given))
        if str(given).isdigit() and int(given) in foreground:
            return int(given)
    named = [number for number in foreground if SURFACE_NAME.search(names[number])]
    for candidates in (named, foreground):
        if given is None and len(candidates) == 1:
            return candidates[0]
    asked = f"surface {given!r} is not one of its labels" if given is not None else "which label is the surface?"
    known = ", ".join(f"{number} {names[number]!r}" for number in foreground)
    raise ModelError(f"{path}: {asked}; its labels are {known}", hint="say which with surface: NAME")


def _normalisation(path: Path, plans: Json, configuration: Json) -> Normalisation:
    scheme, masked = configuration["normalization_schemes"][0], bool(configuration["use_mask_for_norm"][0])
    if scheme == "ZScoreNormalization":
        return Normalisation("zscore", nonzero=masked)
    if scheme == "CTNormalization":
        grey = plans["foreground_intensity_properties_per_channel"]["0"]
        return Normalisation(
            "fixed",
            low=grey["percentile_00_5"],
            high=grey["percentile_99_5"],
            mean=grey["mean"],
            std=max(grey["std"], 1e-8),
        )
    if scheme == "RescaleTo01Normalization":
        return Normalisation("minmax")
    if scheme == "RGBTo01Normalization":
        return Normalisation("fixed", mean=0.0, std=255.0)
    if scheme == "NoNormalization":
        return Normalisation("none")
    raise ModelError(
        f"{path}: normalisation {scheme!r} is not known; known are ZScoreNormalization, CTNormalization, "
        "RescaleTo01Normalization, RGBTo01Normalization and NoNormalization"
    )


def _notes(configuration: Json, normalisation: Normalisation) -> tuple[str, ...]:
    size = f"voxels are taken to have the size the model was trained with, spacing {configuration['spacing'][0]:g}"
    if normalisation.scheme != "zscore" or normalisation.nonzero:
        return (size,)
    return size, "mean and standard deviation are of the whole volume; nnU-Net would first cut off an empty border"


def _in_volume_order(sizes: Sequence[int], order: Sequence[int]) -> Index:
    z, y, x = (int(sizes[order.index(axis)]) for axis in range(3))
    return z, y, x
