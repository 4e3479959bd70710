"""Grey values as a network was trained to see them: one map for the whole volume, or one per window."""

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
    """One map for all: ``(clip(grey, low, high) - shift) / scale``; with ``keep_zero`` a grey value of 0 becomes 0."""

    low: float
    high: float
    shift: float
    scale: float
    keep_zero: bool

    def __call__(self, voxels: Voxels) -> NDArray[np.float32]:
        """Normalise raw voxels one by one in float32, in this order: clip, subtract, divide.

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
    """A map for each array of voxels, from its own grey values."""

    normalisation: Normalisation

    def __call__(self, voxels: Voxels) -> NDArray[np.float32]:
        """Normalise raw uint8 or uint16 voxels by their own statistics; float32 of the same shape."""
        counts = np.zeros(np.iinfo(voxels.dtype).max + 1, np.int64)
        _count(np.ascontiguousarray(voxels).reshape(-1), counts)
        return self.normalisation.ramp(ScanStatistics.of_histogram(counts))(voxels)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How grey values become a network's input.

    Parameters
    ----------
    scheme : {"zscore", "percentile", "fixed", "minmax", "none"}
        ``zscore``: mean 0 and standard deviation 1 (nnU-Net's ``ZScoreNormalization``). ``percentile``: clipped to two
        percentiles, then as ``after_clip`` says. ``fixed``: numbers that came with the model (``CTNormalization``; with
        a std of 255 and nothing else ``RGBTo01Normalization``). ``minmax``: minimum to 0, maximum to 1
        (``RescaleTo01Normalization``). ``none``: grey values as they are.
    scope : {"volume", "window"}
        Whose statistics count. They are never those of a block.
    nonzero : bool
        Statistics of the voxels above 0, which alone are changed; the others are 0 (masked scans; MONAI's
        ``NormalizeIntensity(nonzero=True)``, nnU-Net's ``use_mask_for_norm`` up to filled holes).
    lower_percent, upper_percent : float
        Of ``percentile``.
    after_clip : {"unit", "zscore"}
        Of ``percentile``: lower to 0 and upper to 1 (MONAI's ``ScaleIntensityRangePercentiles``), or mean 0 and
        standard deviation 1 of the clipped values, which the stored quantiles give to a thousandth of the range.
    low, high : float, optional
        Of ``fixed``: clip to this range, raw grey values; absent for no limit.
    mean, std : float
        Of ``fixed``: subtract, then divide.

    Raises
    ------
    InputError
        Percentiles out of order or a standard deviation that is not positive.
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
        """What to do to the raw voxels of every window of a volume with these statistics."""
        return self.ramp(scan) if self.scope == "volume" else OwnRamp(self)

    def ramp(self, scan: ScanStatistics) -> Ramp:
        """The map for grey values with these statistics."""
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
    """Mean and standard deviation of clipped grey values, from the middles of a thousand parts of equal share."""
    edges = np.array([scan.percentile(percent, nonzero=nonzero) for percent in np.linspace(0, 100, 1001)])
    middles = np.clip((edges[1:] + edges[:-1]) / 2, low, high)
    return float(middles.mean()), float(middles.std())
