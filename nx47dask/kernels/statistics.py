"""Statistics of a volume's grey values, from their histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScanStatistics"]


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """Statistics of the whole volume's grey values: the only global facts that a detector may use.

    Parameters
    ----------
    minimum, maximum : int
        Raw integer units.
    mean, std : float
        Raw integer units, in float64 from the histogram.
    mean_nonzero, std_nonzero : float
        The same over the voxels above 0, which are the visible part of a masked scan. 0 if there are none.
    permille : tuple of int
        Quantiles at 0, 0.1, ... 100 %: 1001 grey values, ascending; empty where only the range is known.
    permille_nonzero : tuple of int
        The same over the voxels above 0; empty if there are none.
    """

    minimum: int
    maximum: int
    mean: float
    std: float
    mean_nonzero: float = 0.0
    std_nonzero: float = 0.0
    permille: tuple[int, ...] = ()
    permille_nonzero: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("permille", "permille_nonzero"):  # JSON gives them back as lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def of_histogram(cls, counts: NDArray[np.integer]) -> ScanStatistics:
        """Compute the statistics from the number of voxels at each grey value 0, 1, 2, ...

        A quantile is the smallest grey value with at least this share of the voxels at or below it.

        Parameters
        ----------
        counts : ndarray of int, (grey values,)
            Number of voxels; the sum is at least 1.
        """
        present = np.flatnonzero(counts)
        above = present[present > 0]
        return cls(
            int(present[0]),
            int(present[-1]),
            *_mean_std(present, counts),
            *_mean_std(above, counts),
            _permille(present, counts),
            _permille(above, counts),
        )

    def percentile(self, percent: float, *, nonzero: bool = False) -> float:
        """Return the grey value below which a percentage of the voxels lies, linear between the stored quantiles.

        Parameters
        ----------
        percent : float
            Percentage, 0 to 100.
        nonzero : bool
            Take only the voxels above 0; the result is 0 if there are none.
        """
        quantiles = (self.permille_nonzero or (0,) * 1001) if nonzero else self.permille
        return float(np.interp(percent * 10, np.arange(1001), quantiles))

    @property
    def scale(self) -> float:
        """Grey range in raw units, never zero: ``maximum - minimum + 1e-6``."""
        return self.maximum - self.minimum + 1e-6

    @property
    def std_normalised(self) -> float:
        """Standard deviation of the volume scaled to [0, 1]."""
        return self.std / self.scale


def _mean_std(present: NDArray[np.integer], counts: NDArray[np.integer]) -> tuple[float, float]:
    """Compute mean and standard deviation of the grey values that are present, in float64; 0 and 0 for none."""
    if present.size == 0:
        return 0.0, 0.0
    values, weights = present.astype(np.float64), counts[present].astype(np.float64)
    total = weights.sum()
    mean = (values * weights).sum() / total
    variance = (weights * (values - mean) ** 2).sum() / total
    return float(mean), float(np.sqrt(variance))


def _permille(present: NDArray[np.integer], counts: NDArray[np.integer]) -> tuple[int, ...]:
    """Compute the quantiles of the grey values that are present, at 0, 0.1, ... 100 %; empty for none."""
    if present.size == 0:
        return ()
    cumulative = np.cumsum(counts[present], dtype=np.int64)
    ranks = np.maximum(1, -(-np.arange(1001) * int(cumulative[-1]) // 1000))
    return tuple(present[np.searchsorted(cumulative, ranks)].tolist())
