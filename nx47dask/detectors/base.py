"""What every detector is: a pure function from raw voxels to a surface probability, with a declared radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Index

__all__ = ["Detector", "ScanStatistics", "quantise"]


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """Grey values of the whole volume: the only global facts that a detector may use.

    Parameters
    ----------
    minimum, maximum : int
        Raw integer units.
    mean, std : float
        Raw integer units, in float64 from the histogram.
    """

    minimum: int
    maximum: int
    mean: float
    std: float

    @classmethod
    def of_histogram(cls, counts: NDArray[np.integer]) -> ScanStatistics:
        """Statistics from the number of voxels at each grey value 0, 1, 2, ...

        Parameters
        ----------
        counts : ndarray of int, (grey values,)
            At least one voxel in all.
        """
        present = np.flatnonzero(counts)
        values, weights = present.astype(np.float64), counts[present].astype(np.float64)
        total = weights.sum()
        mean = (values * weights).sum() / total
        variance = (weights * (values - mean) ** 2).sum() / total
        return cls(int(present[0]), int(present[-1]), float(mean), float(np.sqrt(variance)))

    @property
    def scale(self) -> float:
        """Grey range in raw units, never zero: ``maximum - minimum + 1e-6``."""
        return self.maximum - self.minimum + 1e-6

    @property
    def std_normalised(self) -> float:
        """Standard deviation of the volume scaled to [0, 1]."""
        return self.std / self.scale


@runtime_checkable
class Detector(Protocol):
    """A source of surface probability, exact under cropping.

    A block is computed by reading core + radius *clipped to the volume, never padded*, and cropping:
    the result equals the crop of the whole volume's result bit for bit.
    """

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """How far, in voxels, a result depends on the input."""
        ...

    def probability(self, image: NDArray[np.generic], scan: ScanStatistics) -> NDArray[np.float32]:
        """Surface probability in [0, 1], float32, of raw uint8 or uint16 voxels (Z, Y, X); same shape."""
        ...


def quantise(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Store a probability in [0, 1] as uint8: ``round(255 p)``, halves to even; the recorded scale is 1/255."""
    levels: NDArray[np.uint8] = np.rint(probability * np.float32(255)).astype(np.uint8)
    return levels
