"""A weighted mean of probability sources."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors.base import Detector, ScanStatistics
from nx47dask.errors import WorkflowError
from nx47dask.geometry import Index

__all__ = ["Fusion"]


@dataclass(frozen=True, slots=True)
class Fusion:
    """``sum(w p) / sum(w)`` over the sources, in their order.

    Every weight acts on every voxel, before thresholds. (V61.1 added its fusion weight to a whole slice ahead
    of that slice's percentiles, where no constant can change the mask.) A source of weight 0 is not computed.

    Parameters
    ----------
    sources : tuple of (float, Detector)
        Weights, at least 0 and finite, one of them positive; and detectors.

    Raises
    ------
    WorkflowError
        A weight is negative or not finite, or none is positive.
    """

    sources: tuple[tuple[float, Detector], ...]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.sources]
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(w > 0 for w in weights):
            raise WorkflowError(
                f"fusion: weights {weights}: each must be a finite number >= 0 and at least one of them > 0"
            )

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """The largest radius of the sources that count, per axis."""
        z, y, x = zip(*(detector.radius_zyx(scan) for _, detector in self._active()), strict=True)
        return max(z), max(y), max(x)

    def probability(self, image: NDArray[np.generic], scan: ScanStatistics) -> NDArray[np.float32]:
        """Surface probability of raw uint8 or uint16 voxels, float32 (Z, Y, X) in [0, 1]."""
        active = self._active()
        total = math.fsum(weight for weight, _ in active)
        result = np.zeros(image.shape, np.float32)
        for weight, detector in active:
            result += detector.probability(image, scan) * np.float32(weight / total)
        return np.minimum(result, 1, out=result)

    def _active(self) -> list[tuple[float, Detector]]:
        return [(weight, detector) for weight, detector in self.sources if weight > 0]
