"""Tell whether the voxels that a candidate mask gains over the baseline are real surface or repeated artefacts.

There are four kinds of evidence: the labels; the structure of the scan, which is plate-like at a sheet; the contrast
of the scan, since a surface is brighter than both of its sides; and repetition over the whole volume, which bent
sheets do not show. Repetition is needed beside structure and contrast, since a stripe in the scan has these too.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nx47dask.calibration.methods.periodicity import find_repetition, ring_counts, slice_counts
from nx47dask.errors import InputError
from nx47dask.kernels.morphology import dilate

__all__ = ["Evidence", "Pattern", "evidence"]

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Scan = NDArray[np.uint8] | NDArray[np.uint16]
Floats = NDArray[np.float32]
Verdict = Literal["none", "surface", "mixed", "artefact"]

ON_SURFACE_VOX, NEAR_SURFACE_VOX = 2, 8
SAMPLE = 30_000
"""Number of gained voxels, drawn at random, at which the scan is measured; the standard error of a share is 0.003."""
SMOOTHING_VOX = 1.0
WINDOW_VOX = 3
"""Radius of the box over which structure and noise are measured."""
SIDE_VOX = 4
"""Distance from the voxel to each of its sides, along the normal."""
PLANARITY, CONTRAST = 0.5, 2.0
"""Limits above which a voxel is plate-like, and above which the contrast of the scan supports it."""
PEAK, F_RATIO, PATTERN_SHARE = 20.0, 6.0, 0.05
"""Limits from which a pattern counts. Gains on simulated sheets stay below an F of 4.2 at any peak."""
SURFACE_SHARE, ARTEFACT_SHARE, PATTERN_ARTEFACT_SHARE = 0.5, 0.35, 0.5
"""Limits of the verdict. Voxels placed at random lie on the surface of sheets in about 0.3 of the cases."""
JUDGED_SHARE = 0.1
"""Least share of the gained voxels that labels must cover to decide the verdict."""
_ROUNDING = 12**-0.5  # standard deviation of grey values rounded to whole numbers


@dataclass(frozen=True)
class Pattern:
    """Stripes in slices across an axis, or rings around an axis along Z.

    Parameters
    ----------
    kind : {"z", "y", "x", "rings"}
        The axis along which the pattern repeats; rings repeat along the radius.
    period_vox : float
        Length of the period; 0 if nothing repeats.
    peak : float
        Power at the period over the median power of the frequencies around it.
    f_ratio : float
        Variance between the phases of the period over that within them; it is high if the repeats are alike.
    share : float
        Share of the gained voxels that the pattern explains, in [0, 1].
    """

    kind: str
    period_vox: float
    peak: float
    f_ratio: float
    share: float

    @property
    def repeated(self) -> bool:
        """True for an artefact: a peak of at least 20, an F of at least 6, and a share of at least 5 %."""
        return self.peak >= PEAK and self.f_ratio >= F_RATIO and self.share >= PATTERN_SHARE


@dataclass(frozen=True)
class Evidence:
    """Evidence for and against the voxels that a candidate gains. Shares are of the gained voxels, in [0, 1].

    Parameters
    ----------
    gained, lost : int
        Voxels.
    on_surface, unlabelled_near, unlabelled_far, background : float or None
        Label 1 or within 2 voxels of it; farther, under label 2, within 8 voxels of label 1 and beyond; farther,
        under label 0. They sum to 1. None without labels, or where nothing is gained.
    plate_like : float or None
        Where the scan curves like a bright plate: the eigenvalues of its negated Hessian have ``a1 > 0`` and
        ``(a1 - max(|a2|, |a3|)) / a1 > 0.5``.
    contrast : float or None
        Where the scan is brighter than the mean of its two sides, 4 voxels out along the normal, by more than
        twice the local noise.
    patterns : tuple of Pattern
        Along Z, Y and X, and rings.
    """

    gained: int
    lost: int
    on_surface: float | None
    unlabelled_near: float | None
    unlabelled_far: float | None
    background: float | None
    plate_like: float | None
    contrast: float | None
    patterns: tuple[Pattern, ...]

    @property
    def verdict(self) -> Verdict:
        """Verdict on the gained voxels: "surface", "mixed" or "artefact"; "none" if nothing is gained.

        The real share is ``on_surface / (on_surface + background)`` if the labels cover a tenth of the gained voxels
        or more, and ``contrast`` otherwise. If it is less than 0.35, or a repeated pattern explains
        half of the gained voxels, they are an artefact; if it is at least 0.5 and no pattern is repeated, surface.
        """
        if self.contrast is None:
            return "none"
        repeated = max((pattern.share for pattern in self.patterns if pattern.repeated), default=0.0)
        real = self.contrast
        if self.on_surface is not None and self.background is not None:
            judged = self.on_surface + self.background
            real = self.on_surface / judged if judged >= JUDGED_SHARE else real
        if repeated >= PATTERN_ARTEFACT_SHARE or real < ARTEFACT_SHARE:
            return "artefact"
        return "surface" if real >= SURFACE_SHARE and not repeated else "mixed"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, with the verdict, and in ``repeated`` of each pattern if it counts."""
        patterns = [asdict(pattern) | {"repeated": pattern.repeated} for pattern in self.patterns]
        return asdict(self) | {"patterns": patterns, "verdict": self.verdict}


def evidence(
    scan: Scan,
    baseline: Mask,
    candidate: Mask,
    labels: Labels | None = None,
    *,
    centre_yx: tuple[float, float] | None = None,
) -> Evidence:
    """Measure the evidence for the voxels that a candidate mask gains over the mask of the baseline.

    Patterns are sought among the gained voxels that are not on the labelled surface: voxels on the labelled sheets are
    no artefact, even if the sheets are regular.

    Parameters
    ----------
    scan : ndarray of uint8 or uint16, shape (Z, Y, X)
    baseline, candidate : ndarray of bool, shape (Z, Y, X)
    labels : ndarray of uint8, shape (Z, Y, X), optional
        0 background, 1 surface, 2 left out.
    centre_yx : tuple of float, optional
        Axis of rotation of the scanner in voxels, for rings; the middle of the slice by default. It may lie outside
        the volume.

    Raises
    ------
    InputError
        The arrays differ in shape, or are not three-dimensional.

    Notes
    -----
    The scan is smoothed by a Gaussian of 1 voxel. Its Hessian is taken by central differences (Sato et al. 2000);
    the normal is the first axis of the structure tensor over a box of 7 voxels (Förstner and Gülch 1987). The noise is
    1.4826 times the median, over the same box, of what the smoothing removes. This is more than the noise of the
    smoothed values, which are compared.
    """
    _check_shapes(scan, baseline=baseline, candidate=candidate, labels=labels)
    gained = candidate & ~baseline
    count, lost = int(np.count_nonzero(gained)), int(np.count_nonzero(baseline & ~candidate))
    shares, doubtful = dict.fromkeys(_CLASSES), gained
    if labels is not None and count:
        classes = _classes(gained, labels)
        by_class = np.bincount(classes.ravel(), minlength=1 + len(_CLASSES))[1:] / count
        shares, doubtful = dict(zip(_CLASSES, by_class.tolist(), strict=True)), classes > 1
    plate_like, contrast = _seen_in_scan(scan, gained, count) if count else (None, None)
    return Evidence(count, lost, **shares, plate_like=plate_like, contrast=contrast,
                    patterns=_patterns(doubtful, max(count, 1), centre_yx))  # fmt: skip


_CLASSES = ("on_surface", "unlabelled_near", "unlabelled_far", "background")


def _check_shapes(first: NDArray[Any], **others: NDArray[Any] | None) -> None:
    if first.ndim != 3:
        raise InputError(f"evidence: an array of shape {first.shape}", hint="pass whole volumes (Z, Y, X)")
    for name, array in others.items():
        if array is not None and array.shape != first.shape:
            raise InputError(
                f"evidence: {name} has shape {array.shape}, but the volume has {first.shape}",
                hint="pass the masks and labels of one volume",
            )


def _classes(gained: Mask, labels: Labels) -> NDArray[np.uint8]:
    """Number of the class of each gained voxel, from 1; 0 elsewhere."""
    on, near = (_within(labels == 1, radius) for radius in (ON_SURFACE_VOX, NEAR_SURFACE_VOX))
    classes = np.where(labels == 2, np.where(near, np.uint8(2), np.uint8(3)), np.uint8(4))
    classes[on] = 1
    classes[~gained] = 0
    return classes


def _within(mask: Mask, radius_vox: int) -> Mask:
    return dilate(mask, (radius_vox,) * 3, "ellipsoid")


def _patterns(mask: Mask, gained: int, centre_yx: tuple[float, float] | None) -> tuple[Pattern, ...]:
    middle = (mask.shape[1] - 1) / 2, (mask.shape[2] - 1) / 2
    tiles = [slice_counts(mask, axis) for axis in range(3)]
    tiles.append(ring_counts(mask, middle if centre_yx is None else centre_yx))
    repetitions = [(kind, find_repetition(*parts)) for kind, parts in zip(("z", "y", "x", "rings"), tiles, strict=True)]
    return tuple(
        Pattern(kind, each.period_vox, each.peak, each.f_ratio, each.voxels / gained) for kind, each in repetitions
    )


def _seen_in_scan(scan: Scan, gained: Mask, count: int) -> tuple[float, float]:
    """Measure the share of the gained voxels where the scan is plate-like, and where its contrast supports them."""
    chosen = np.flatnonzero(gained)
    if count > SAMPLE:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, SAMPLE, replace=False))
    margin = max(WINDOW_VOX, SIDE_VOX) + 1
    padded = np.pad(scan, margin, mode="edge")
    smooth = ndimage.gaussian_filter(padded, SMOOTHING_VOX, output=np.float32)
    points = np.stack(np.unravel_index(chosen, scan.shape)) + margin
    at = np.ravel_multi_index(tuple(points), padded.shape)
    low, middle, high = np.linalg.eigvalsh(_negated_hessian(smooth, at)).T
    plate_like = high - np.maximum(np.abs(low), np.abs(middle)) > PLANARITY * np.abs(high)
    tensor, noise = _structure(padded, smooth, at)
    out = SIDE_VOX * np.linalg.eigh(tensor).eigenvectors[:, :, 2].T
    above, below = (ndimage.map_coordinates(smooth, points + step, order=1) for step in (out, -out))
    supported = smooth.ravel()[at] - (above + below) / 2 > CONTRAST * noise
    return float(plate_like.mean()), float(supported.mean())


def _negated_hessian(smooth: Floats, at: NDArray[np.intp]) -> Floats:
    """Compute the negated Hessian by central differences at flat indices, shape (n, 3, 3)."""
    grey, strides = smooth.ravel(), _strides(smooth)
    result = np.empty((len(at), 3, 3), np.float32)
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        same, cross = strides[i] + strides[j], strides[i] - strides[j]
        corners = grey[at + cross] + grey[at - cross] - grey[at + same] - grey[at - same]
        result[:, i, j] = result[:, j, i] = corners / 4
    return result


def _structure(padded: NDArray[Any], smooth: Floats, at: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Compute structure tensor (n, 3, 3) and noise (n,) at flat indices, from every other voxel of the box."""
    grey, raw, strides = smooth.ravel(), padded.ravel(), _strides(smooth)
    tensor = np.zeros((len(at), 3, 3), np.float32)
    removed = []
    for offset in itertools.product(range(-WINDOW_VOX, WINDOW_VOX + 1, 2), repeat=3):
        there = at + int(np.dot(offset, strides))
        gradient = np.stack([grey[there + stride] - grey[there - stride] for stride in strides], axis=1)
        tensor += gradient[:, :, None] * gradient[:, None, :]
        removed.append(np.abs(raw[there] - grey[there]))
    return tensor, np.maximum(1.4826 * np.median(removed, axis=0), _ROUNDING).astype(np.float32)


def _strides(volume: Floats) -> tuple[int, int, int]:
    return volume.shape[1] * volume.shape[2], volume.shape[2], 1
