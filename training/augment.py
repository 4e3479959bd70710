"""Patches and their augmentation. All draws come from a single generator, so a step can be repeated from its number.

The surface is the recto. It differs from the verso in three ways: it is the concave face, its fibres run around the
scroll and those of the verso along it, and it may be brighter. So image and label are turned together, Z stays Z (the
axis of a scroll, except for a tilt), and no change of grey values depends on direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.volumes import TrainingVolume

__all__ = ["draw_batch", "draw_patch"]

LEAST_SURFACE = 0.005
"""Smallest share of surface in a patch; with less, another place is drawn (a few times)."""
ATTEMPTS = 5


def draw_batch(
    volumes: Sequence[TrainingVolume], weights: Sequence[float], edge: int, batch: int, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a batch of augmented patches: images float32 (B, 1, Z, Y, X), targets uint8 of the same shape."""
    chosen = draw.choice(len(volumes), size=batch, p=np.asarray(weights) / np.sum(weights))
    patches = [draw_patch(volumes[number], edge, draw) for number in chosen]
    return torch.stack([image for image, _ in patches]), torch.stack([target for _, target in patches])


def draw_patch(volume: TrainingVolume, edge: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw an augmented patch: image float32 (1, Z, Y, X) in standard deviations, target uint8 of the same shape."""
    warped = draw.random() < 0.4
    size = math.ceil(edge * 1.35) if warped else edge
    image, target = _crop(volume, size, draw)
    image, target = _turn(image, target, draw)
    grey = torch.from_numpy(volume.normalise(image))[None]
    label = torch.from_numpy(target.copy())[None]
    if warped:
        grey, label = _warp(grey, label, edge, draw)
    return _change_greys(grey, draw), label


def _crop(
    volume: TrainingVolume, size: int, draw: np.random.Generator
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.uint8]]:
    for _ in range(ATTEMPTS):
        starts = [int(draw.integers(0, max(1, n - size + 1))) for n in volume.image.shape]
        box = tuple(slice(a, a + size) for a in starts)
        target = volume.target[box]
        if np.count_nonzero(target & 1) >= LEAST_SURFACE * target.size:
            break
    image = volume.image[box]
    missing = [(0, size - n) for n in image.shape]
    if any(after for _, after in missing):
        image = np.pad(image, missing, mode="symmetric")
        target = np.pad(target, missing, constant_values=2)
    return image, target


def _turn(
    image: NDArray[np.unsignedinteger], target: NDArray[np.uint8], draw: np.random.Generator
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.uint8]]:
    """Apply one of the 16 symmetries of the cube that keep the Z axis."""
    axes = (0, 2, 1) if draw.random() < 0.5 else (0, 1, 2)
    flips = tuple(axis for axis in range(3) if draw.random() < 0.5)
    return np.flip(image.transpose(axes), flips), np.flip(target.transpose(axes), flips)


def _warp(image: Tensor, target: Tensor, edge: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn around the middle, by any angle in the slice and a tilt of up to 0.2 rad, and zoom by 0.8 to 1.25."""
    # grid_sample counts axes from X: 0 is X, 2 is Z.
    turn = _rotation(draw.uniform(-math.pi, math.pi), 0, 1)
    tilt = _rotation(draw.uniform(-0.2, 0.2), 0, 2) @ _rotation(draw.uniform(-0.2, 0.2), 1, 2)
    matrix = turn @ tilt * (edge / image.shape[-1])
    matrix *= np.exp(draw.uniform(np.log(0.8), np.log(1.25)))
    theta = torch.from_numpy(np.hstack([matrix, np.zeros((3, 1))]).astype(np.float32))[None]
    grid = functional.affine_grid(theta, [1, 1, edge, edge, edge], align_corners=False)
    warped = functional.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # Outside the crop nothing is known, so the target there is "ignore": 2, sampled as 0 from the target minus 2.
    near = functional.grid_sample(
        target[None].float() - 2, grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return warped[0], (near[0] + 2).round().to(torch.uint8)


def _rotation(angle: float, a: int, b: int) -> NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix


def _change_greys(image: Tensor, draw: np.random.Generator) -> Tensor:
    """Change blur, contrast, brightness, gamma, noise and missing slices, each with its own probability."""
    if draw.random() < 0.25:
        image = _blur(image, draw.uniform(0.4, 1.1))
    if draw.random() < 0.3:
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low + 1e-6)) ** float(np.exp(draw.uniform(-0.4, 0.4))) * (high - low) + low
    if draw.random() < 0.3:
        coarse = torch.from_numpy(draw.normal(0, 0.25, (1, 1, 3, 3, 3)).astype(np.float32))
        image = image + functional.interpolate(coarse, image.shape[1:], mode="trilinear", align_corners=True)[0]
    image = image * float(np.exp(draw.uniform(-0.3, 0.3))) + float(draw.uniform(-0.3, 0.3))
    if draw.random() < 0.4:
        noise = draw.standard_normal(image.shape, dtype=np.float32) * np.float32(draw.uniform(0.05, 0.35))
        image = image + torch.from_numpy(noise)
    if draw.random() < 0.05:
        _lose_slices(image, draw)
    return image


def _blur(image: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    for axis in (1, 2, 3):
        n = image.shape[axis]
        ends = [image.narrow(axis, i, 1).repeat_interleave(3, axis) for i in (0, n - 1)]
        padded = torch.cat([ends[0], image, ends[1]], axis)
        image = sum((padded.narrow(axis, k, n) * float(tap) for k, tap in enumerate(taps)), torch.zeros(()))
    return image


def _lose_slices(image: Tensor, draw: np.random.Generator) -> None:
    """Blank one to three neighbouring slices along an axis in place, as in scans with missing files."""
    axis = int(draw.integers(1, 4))
    thickness = int(draw.integers(1, 4))
    image.narrow(axis, int(draw.integers(0, image.shape[axis] - thickness)), thickness).fill_(float(image.min()))
