"""Grey values as a network was trained to see them: a map for the whole volume, or a map per window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import InputError
from nx47dask.kernels.compiled import compiled
from nx47dask.kernels.statistics import ScanStatistics

__all__ = ["Normalisation", "OwnRamp", "Ramp"]

Voxels = NDArray[np.unsignedinteger]
_SMALLEST_SCALE = 1e-8


class Ramp(NamedTuple):
    """Map of grey values, ``(clip(grey, low, high) - shift) / scale``; with ``keep_zero``, 0 stays 0."""

    low: float
    high: float
    shift: float
    scale: float
    keep_zero: bool

    def __call__(self, voxels: Voxels) -> NDArray[np.float32]:
        """Normalise raw voxels in float32, each in this order: clip, subtract, divide.

        Parameters
        ----------
        voxels : ndarray of uint8 or uint16, any shape

        Returns
        -------
        ndarray of float32, same shape, C-contiguous
        """
        result = np.empty(voxels.shape, np.float32)
        low, high, shift, scale = (np.float32(number) for number in self[:4])
        _apply(np.ascontiguousarray(voxels).reshape(-1), result.reshape(-1), low, high, shift, scale, self.keep_zero)
        return result


class OwnRamp(NamedTuple):
    """Map of grey values that takes its statistics from each array of voxels."""

    normalisation: Normalisation

    def __call__(self, voxels: Voxels) -> NDArray[np.float32]:
        """Normalise raw uint8 or uint16 voxels by their own statistics; return float32 of the same shape."""
        counts = np.zeros(np.iinfo(voxels.dtype).max + 1, np.int64)
        _count(np.ascontiguousarray(voxels).reshape(-1), counts)
        return self.normalisation.ramp(ScanStatistics.of_histogram(counts))(voxels)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Rule that turns grey values into a network's input.

    Parameters
    ----------
    scheme : {"zscore", "percentile", "fixed", "minmax", "none"}
        ``zscore``: mean 0 and standard deviation 1 (nnU-Net's ``ZScoreNormalization``). ``percentile``: clipped to two
        percentiles, then as ``after_clip`` says. ``fixed``: numbers that came with the model (``CTNormalization``; with
        a std of 255 and nothing else ``RGBTo01Normalization``). ``minmax``: minimum to 0, maximum to 1
        (``RescaleTo01Normalization``). ``none``: grey values as they are.
    scope : {"volume", "window"}
        Voxels that give the statistics: the volume or each window, never a block.
    nonzero : bool
        Take the statistics of the voxels above 0 and change only those; the others stay 0. This is for masked scans
        (MONAI's ``NormalizeIntensity(nonzero=True)``, nnU-Net's ``use_mask_for_norm`` up to filled holes).
    lower_percent, upper_percent : float
        For ``percentile``: the two percentiles, 0 to 100.
    after_clip : {"unit", "zscore"}
        For ``percentile``: map lower to 0 and upper to 1 (MONAI's ``ScaleIntensityRangePercentiles``), or the clipped
        values to mean 0 and standard deviation 1. The stored quantiles give both to a thousandth of the range.
    low, high : float, optional
        For ``fixed``: clip to this range of raw grey values; absent for no limit.
    mean, std : float
        For ``fixed``: subtract the mean, then divide by the standard deviation.

    Raises
    ------
    InputError
        Percentiles are out of order or outside 0 to 100, or mean or std is not finite, or std is not positive.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    scheme: Literal["zscore", "percentile", "fixed", "minmax", "none"]
    scope: Literal["volume", "window"] = "volume"
    nonzero: bool = False
    lower_percent: float = 0.5
    upper_percent: float = 99.5
    after_clip: Literal["unit", "zscore"] = "unit"
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lower_percent < self.upper_percent <= 100:
            raise InputError(
                f"normalisation: percentiles {self.lower_percent} and {self.upper_percent}: "
                "0 <= lower_percent < upper_percent <= 100 is needed"
            )
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise InputError(f"normalisation: mean {self.mean}, std {self.std}: finite, and the std above 0, is needed")

    def resolve(self, scan: ScanStatistics) -> Ramp | OwnRamp:
        """Return the map for the windows of a volume with these statistics."""
        return self.ramp(scan) if self.scope == "volume" else OwnRamp(self)

    def ramp(self, scan: ScanStatistics) -> Ramp:
        """Return the map for grey values with these statistics."""
        if self.scheme == "none":
            return Ramp(-math.inf, math.inf, 0.0, 1.0, False)
        if self.scheme == "fixed":
            low = -math.inf if self.low is None else self.low
            high = math.inf if self.high is None else self.high
            return self._of(low, high, self.mean, self.std)
        if self.scheme == "zscore":
            mean_std = (scan.mean_nonzero, scan.std_nonzero) if self.nonzero else (scan.mean, scan.std)
            return self._of(-math.inf, math.inf, *mean_std)
        percents = (0.0, 100.0) if self.scheme == "minmax" else (self.lower_percent, self.upper_percent)
        low, high = (scan.percentile(percent, nonzero=self.nonzero) for percent in percents)
        if self.scheme == "percentile" and self.after_clip == "zscore":
            return self._of(low, high, *_clipped_mean_std(scan, low, high, self.nonzero))
        return self._of(low, high, low, high - low)

    def _of(self, low: float, high: float, shift: float, scale: float) -> Ramp:
        return Ramp(low, high, shift, max(scale, _SMALLEST_SCALE), self.nonzero)


@compiled
def _apply(
    voxels: Voxels,
    result: NDArray[np.float32],
    low: np.float32,
    high: np.float32,
    shift: np.float32,
    scale: np.float32,
    keep_zero: bool,
) -> None:
    for n in range(len(voxels)):
        grey = np.float32(voxels[n])
        normal = (min(max(grey, low), high) - shift) / scale
        result[n] = np.float32(0) if keep_zero and grey == 0 else normal


@compiled
def _count(voxels: Voxels, counts: NDArray[np.int64]) -> None:
    for voxel in voxels:
        counts[voxel] += 1


def _clipped_mean_std(scan: ScanStatistics, low: float, high: float, nonzero: bool) -> tuple[float, float]:
    """Estimate mean and standard deviation of clipped grey values from the middles of 1000 equal shares."""
    edges = np.array([scan.percentile(percent, nonzero=nonzero) for percent in np.linspace(0, 100, 1001)])
    middles = np.clip((edges[1:] + edges[:-1]) / 2, low, high)
    return float(middles.mean()), float(middles.std())
