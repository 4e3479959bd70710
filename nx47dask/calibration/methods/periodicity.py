"""Find patterns that repeat over a whole volume: stripes across an axis, and rings around an axis along Z.

Sheets of a roll repeat too, but they bend. If a slice is cut into tiles, the sheets of a tile lie at other depths than
those of the next tile. A stripe crosses all tiles in the same slice, and a ring crosses all sectors and all Z at the
same radius. So a pattern is sought in the *common profile*: at each depth, the density that three quarters of the
tiles have at least. Sheets that lie in the planes of an axis to within about a sixth of their spacing, all over the
volume, cannot be told from stripes in this way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Repetition", "find_repetition", "ring_counts", "slice_counts"]

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
Profile = NDArray[np.float64]

SIDE_TILES = 8
"""Number of tiles along each side of a slice."""
SECTORS, SLABS = 16, 4
"""Number of sectors of a ring, and of slabs along Z."""
FEWEST_REPEATS = 6
"""Least number of repeats along an axis: with fewer, the harmonics run together in the spectrum."""
_FEWEST_VOXELS = 8  # of a tile at one depth, to have a density
_LARGEST_RATIO = 1e6
_NEIGHBOURHOOD = 16  # to each side of a peak, in frequencies of the unpadded spectrum
_PADDING = 4  # of the spectrum, so that no period falls between two of its frequencies


@dataclass(frozen=True)
class Repetition:
    """Strongest repetition along a profile.

    Parameters
    ----------
    period_vox : float
        Length of the period; 0 if nothing repeats.
    peak : float
        Power at the period over the median power of the frequencies around it and off its harmonics, at most 10^6.
    f_ratio : float
        Variance of the common profile between the phases of the period over that within them, at most 10^6. It is
        high if the repeats are alike, about 1 by chance, and less where slow changes outweigh it.
    voxels : int
        Voxels of the mask in the stripes, beyond the density between them.
    """

    period_vox: float
    peak: float
    f_ratio: float
    voxels: int


def slice_counts(mask: Mask, axis: int) -> tuple[Counts, Counts]:
    """Count the voxels of a mask, shape (Z, Y, X), in the tiles of every slice across an axis.

    Returns
    -------
    counts, areas : ndarray of int64, shape (slices, tiles)
        Voxels of the mask, and voxels in all.
    """
    across = np.moveaxis(mask, axis, 0)
    depth, *sides = across.shape
    cuts = [np.unique(np.arange(SIDE_TILES) * n // SIDE_TILES) for n in sides]
    counts = np.add.reduceat(across, cuts[1], axis=2, dtype=np.int64)
    counts = np.add.reduceat(counts, cuts[0], axis=1).reshape(depth, -1)
    area = np.outer(*(np.diff(cut, append=n) for cut, n in zip(cuts, sides, strict=True))).ravel()
    return counts, np.broadcast_to(area, counts.shape)


def ring_counts(mask: Mask, centre_yx: tuple[float, float]) -> tuple[Counts, Counts]:
    """Count the voxels of a mask, shape (Z, Y, X), by distance from an axis along Z, in tiles of a sector and a slab.

    Parameters
    ----------
    centre_yx : tuple of float
        Position of the axis; it may lie outside the volume. The sectors divide the angle under which the volume is
        seen.

    Returns
    -------
    counts, areas : ndarray of int64, shape (radii, tiles)
        Voxels of the mask, and voxels in all; row r has the distances that round to r.
    """
    depth, height, width = mask.shape
    y, x = np.arange(height)[:, None] - centre_yx[0], np.arange(width) - centre_yx[1]
    radius = np.rint(np.hypot(y, x)).astype(np.int64)
    # angles against the direction of the volume's middle, so that a volume beside the axis is not cut at +-pi
    middle = np.arctan2((height - 1) / 2 - centre_yx[0], (width - 1) / 2 - centre_yx[1])
    angle = (np.arctan2(y, x) - middle + np.pi) % (2 * np.pi)
    share = (angle - angle.min()) / max(float(np.ptp(angle)), 1e-9)
    place = radius * SECTORS + np.minimum((share * SECTORS).astype(np.int64), SECTORS - 1)
    size = (int(radius.max()) + 1) * SECTORS
    area = np.bincount(place.ravel(), minlength=size)
    counts, areas = [], []
    for slab in np.array_split(np.arange(depth), min(SLABS, depth)):
        weights = mask[slab[0] : slab[-1] + 1].sum(axis=0)
        counts.append(np.bincount(place.ravel(), weights.ravel(), size).astype(np.int64).reshape(-1, SECTORS))
        areas.append((area * len(slab)).reshape(-1, SECTORS))
    return np.hstack(counts), np.hstack(areas)


def find_repetition(counts: Counts, areas: Counts) -> Repetition:
    """Find the strongest repetition that the tiles of a profile have in common.

    The common profile, without its quadratic trend, has a spectrum (Hann window); of the peaks with at least a third
    of the power of the largest, the one of the longest period is taken, since a comb of thin stripes has harmonics as
    strong as itself. The period is made exact by epoch folding (Leahy et al. 1983, "On searches for pulsed emission"):
    the profile is averaged at equal phase, and the period of the largest variance wins. Stripes are the phases above
    the middle between the lowest and the highest.

    Parameters
    ----------
    counts, areas : ndarray of int64, shape (N, tiles)
        Counts of :func:`slice_counts` or :func:`ring_counts`. Tiles with less than a quarter of the voxels of the mean
        tile are left out; if more than half of the tiles are left out, nothing is found.

    Returns
    -------
    Repetition
        Periods from 2 voxels to N / 6 are sought.
    """
    nothing = Repetition(0.0, 0.0, 0.0, 0)
    dense = counts.sum(axis=0) >= max(1.0, 0.25 * counts.sum() / counts.shape[1])
    valid = (areas >= _FEWEST_VOXELS) & dense
    rows = np.flatnonzero(2 * valid.sum(axis=1) >= counts.shape[1])
    if not len(rows):
        return nothing
    rows = np.arange(rows[0], rows[-1] + 1)
    densities = np.where(valid, counts / np.maximum(areas, 1), np.nan)[rows]
    common = np.nan_to_num(np.nanquantile(densities, 0.25, axis=1))
    period, peak = _spectral_peak(common)
    if not period:
        return nothing
    period = _exact_period(common, period)
    phases = _phases(len(rows), period)
    voxels = _stripe_voxels(_folded(common, phases), counts[rows].sum(axis=1), areas[rows].sum(axis=1), phases)
    return Repetition(period, peak, _f_ratio(common, phases), round(voxels))


def _spectral_peak(profile: Profile) -> tuple[float, float]:
    """Find the period in voxels and its power over the median around it; zeros for a profile too short or even."""
    n = len(profile)
    first, at = _PADDING * FEWEST_REPEATS, np.arange(n)
    if n < 4 * FEWEST_REPEATS:
        return 0.0, 0.0
    even = profile - np.polynomial.Polynomial.fit(at, profile, 2)(at)
    power = np.abs(np.fft.rfft(even * np.hanning(n), _PADDING * n)) ** 2
    largest = power[first:].max()
    if largest <= 1e-18 * n * n:  # rounding
        return 0.0, 0.0
    # the spectrum is even about its last frequency, a period of 2
    top = (power >= np.roll(power, 1)) & (power >= np.append(power[1:], power[-2])) & (power >= largest / 3)
    best = first + int(np.argmax(top[first:])) if top[first:].any() else first + int(np.argmax(power[first:]))
    near = np.arange(max(first, best - _PADDING * _NEIGHBOURHOOD), min(len(power), best + _PADDING * _NEIGHBOURHOOD))
    off_harmonics = np.abs((near + best // 2) % best - best // 2) >= 2 * _PADDING  # the half width of a Hann peak
    median = float(np.median(power[near[off_harmonics]]))
    return _PADDING * n / best, float(power[best] / max(median, power[best] / _LARGEST_RATIO))


def _exact_period(profile: Profile, period: float) -> float:
    """Find the period nearby at which the folded profile varies most; a whole one unless another is a tenth better."""
    frequencies = 1 / period + np.linspace(-1, 1, 33) / (2 * _PADDING * len(profile))
    periods = np.append(1 / frequencies[frequencies <= 0.5], round(period))
    variances = np.array([_folded(profile, _phases(len(profile), p)).var() for p in periods])
    variances[-1] *= 1.1
    return float(periods[np.argmax(variances)])


def _f_ratio(profile: Profile, phases: NDArray[np.int64]) -> float:
    """Compute F of an analysis of variance by phase."""
    fitted, bins = _folded(profile, phases)[phases], int(phases.max()) + 1
    between = ((fitted - profile.mean()) ** 2).sum() / (bins - 1)
    within = ((profile - fitted) ** 2).sum() / (len(profile) - bins)
    return float(between / max(within, between / _LARGEST_RATIO))


def _stripe_voxels(shape: Profile, counts: Counts, areas: Counts, phases: NDArray[np.int64]) -> float:
    """Count the voxels in the stripes beyond the density between them, which is the lower quartile of the phases."""
    stripes = (shape > (shape.min() + shape.max()) / 2)[phases]
    density = counts / areas
    between = np.quantile(_folded(density, phases), 0.25, method="lower")
    return float(((density - between) * areas)[stripes].clip(0).sum())


def _phases(n: int, period: float) -> NDArray[np.int64]:
    bins = max(2, round(period))
    return np.minimum((np.arange(n) / period % 1 * bins + 1e-9).astype(np.int64), bins - 1)


def _folded(profile: Profile, phases: NDArray[np.int64]) -> Profile:
    """Average a profile at each phase."""
    return np.bincount(phases, profile) / np.maximum(np.bincount(phases), 1)
