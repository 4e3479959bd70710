"""Labelled volumes to train on: any dataset in the competition's layout, and phantoms of varied parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter

from nx47dask.errors import InputError
from nx47dask.geometry import Box, Index
from nx47dask.io import discover
from nx47dask.kernels.normalisation import Normalisation, Ramp
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.phantom.render import LABEL_SURFACE, Phantom, render

__all__ = ["NORMALISATION", "SKELETON", "TrainingVolume", "medial_surface", "phantom_volumes", "read_volumes"]

NORMALISATION = Normalisation(scheme="zscore", nonzero=True)
"""Normalisation of the default model: standard deviations of the volume, without the voxels that a mask set to 0."""
SKELETON = 3
"""Value of :attr:`TrainingVolume.target` in the middle of a labelled sheet."""


@dataclass(frozen=True, eq=False)
class TrainingVolume:
    """A labelled volume and its training target.

    Attributes
    ----------
    id : str
    image : ndarray of uint8 or uint16, (Z, Y, X)
    target : ndarray of uint8, (Z, Y, X)
        0 background, 1 surface, 2 ignore, 3 medial surface of the labelled sheet.
    normalise : Ramp
        Maps raw grey values to the network's input.
    """

    id: str
    image: NDArray[np.unsignedinteger]
    target: NDArray[np.uint8]
    normalise: Ramp

    @classmethod
    def of(cls, name: str, image: NDArray[np.unsignedinteger], label: NDArray[np.uint8]) -> TrainingVolume:
        """Make a training volume: compute the statistics of the image and the medial surface of the label."""
        scan = ScanStatistics.of_histogram(np.bincount(image.ravel()))
        target = label.copy()
        target[medial_surface(label == LABEL_SURFACE)] = SKELETON
        return cls(name, image, target, NORMALISATION.ramp(scan))


def medial_surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the middle of a thin sheet, 1 to 2 voxels wide: voxels at least as deep as their 26 neighbours.

    Parameters
    ----------
    mask : ndarray of bool, (Z, Y, X)
    """
    distance: NDArray[np.float32] = distance_transform_edt(mask).astype(np.float32)
    ridge: NDArray[np.bool_] = mask & (distance >= maximum_filter(distance, 3))
    return ridge


def read_volumes(folder: Path, leave_out: Sequence[str] = ()) -> list[TrainingVolume]:
    """Read the volumes of ``train_images/`` with their labels of ``train_labels/``, except those left out.

    Raises
    ------
    InputError
        A label is missing or has another shape, or a volume to leave out does not exist.
    """
    images = {volume.id: volume for volume in discover([folder / "train_images"])}
    labels = {volume.id: volume for volume in discover([folder / "train_labels"])}
    unknown = sorted(set(leave_out) - set(images))
    if unknown:
        raise InputError(f"--leave-out {unknown[0]}: {folder / 'train_images'} has {', '.join(sorted(images))}")
    volumes = []
    for name in sorted(set(images) - set(leave_out)):
        if name not in labels:
            raise InputError(f"{folder / 'train_labels'}: there is no label for {name}; add {name}.tif")
        image, label = images[name], labels[name]
        if image.shape != label.shape:
            raise InputError(f"{label.path}: shape {label.shape}, but its image has {image.shape}")
        whole = Box.of_shape(image.shape)
        volumes.append(TrainingVolume.of(name, image.read(whole), label.read(whole).astype(np.uint8)))
    return volumes


def phantom_volumes(count: int, shape: Index, seed: int) -> list[TrainingVolume]:
    """Render synthetic scrolls, each with its own random parameters: spacing, thickness, waves, webs, greys, noise."""
    return [_phantom_volume(shape, seed + number) for number in range(count)]


def _phantom_volume(shape: Index, seed: int) -> TrainingVolume:
    draw = np.random.default_rng(seed)
    spacing_vox = draw.uniform(13, 30)
    air_grey = draw.uniform(70, 130)
    phantom = Phantom(
        shape,
        seed,
        spacing_vox=spacing_vox,
        thickness_vox=spacing_vox * draw.uniform(0.35, 0.7),
        thickness_spread_vox=draw.uniform(0.5, 2.2),
        hollow_turns=draw.uniform(0, 2),
        umbilicus_distance_vox=draw.uniform(0, 300),
        wander_vox=draw.uniform(0, 25),
        waviness=draw.uniform(0.3, 1.6),
        delamination_vox=draw.uniform(0, 5),
        webbing=draw.uniform(0, 0.7),
        air_grey=air_grey,
        papyrus_grey=air_grey + draw.uniform(18, 60),
        fibre_grey=draw.uniform(25, 70),
        noise_grey=draw.uniform(2, 10),
        speck_share=draw.uniform(0, 0.15),
        border_vox=1,
    )
    image, label = render(phantom, Box.of_shape(shape))
    return TrainingVolume.of(f"phantom-{seed}", image, label)
