"""Weighted mean of sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nx47dask.detectors.base import Detector, ScanStatistics
from nx47dask.geometry import Index


@dataclass(frozen=True, slots=True)
class Fusion:
    """Weighted mean of sources (draft; to be replaced)."""

    sources: tuple[tuple[float, Detector], ...]

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        z, y, x = (max(r) for r in zip(*(d.radius_zyx(scan) for _, d in self.sources), strict=True))
        return z, y, x

    def probability(self, image: NDArray[np.generic], scan: ScanStatistics) -> NDArray[np.float32]:
        total = np.zeros(image.shape, np.float32)
        for weight, detector in self.sources:
            total += np.float32(weight) * detector.probability(image, scan)
        return total / np.float32(sum(w for w, _ in self.sources))
