"""What every detector is: a pure function from raw voxels to a surface probability, with a declared reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box, Index

__all__ = ["Detector", "RadiusDetector", "ScanStatistics", "quantise"]


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """Grey values of the whole volume: the only global facts that a detector may use.

    Parameters
    ----------
    minimum, maximum : int
        Raw integer units.
    mean, std : float
        Raw integer units, in float64 from the histogram.
    mean_nonzero, std_nonzero : float
        The same over the voxels above 0: of what a masked scan shows. 0 where there is none.
    permille : tuple of int
        Quantiles at 0, 0.1, ... 100 %: 1001 grey values, ascending; empty where only the range is known.
    permille_nonzero : tuple of int
        The same over the voxels above 0; empty where there is none.
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
        """Statistics from the number of voxels at each grey value 0, 1, 2, ...

        A quantile is the least grey value with at least that share of the voxels at or below it.

        Parameters
        ----------
        counts : ndarray of int, (grey values,)
            At least one voxel in all.
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
        """Grey value below which a percentage of the voxels lies, linear between the stored quantiles.

        Parameters
        ----------
        percent : float
            0 to 100.
        nonzero : bool
            Of the voxels above 0 only; 0 where there is none.
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


@runtime_checkable
class Detector(Protocol):
    """A source of surface probability, exact under cropping.

    A block is computed from its context, which is *clipped to the volume, never padded*; the result equals the crop of
    the whole volume's result bit for bit. All boxes are in voxels of the volume, which begins at 0.
    """

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """How far at most, in voxels, a result depends on the input."""
        ...

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """What to read of the volume for the result in a box."""
        ...

    def probability(
        self, image: NDArray[np.unsignedinteger], outer: Box, core: Box, volume: Box, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """Surface probability of ``core``, float32 (Z, Y, X) in [0, 1].

        Parameters
        ----------
        image : ndarray of uint8 or uint16, (Z, Y, X)
            Raw voxels of ``outer``.
        outer : Box
            The context of ``core``.
        core, volume : Box
        scan : ScanStatistics
        """
        ...

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """What must be empty (all voxels 0) for a stored probability of 0 all over ``core``; None: it never is."""
        ...


class RadiusDetector(ABC):
    """A detector whose result at a voxel depends on the voxels within a radius, and on nothing else."""

    __slots__ = ()

    @abstractmethod
    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """How far, in voxels, a result depends on the input."""

    @abstractmethod
    def respond(self, image: NDArray[np.unsignedinteger], scan: ScanStatistics) -> NDArray[np.float32]:
        """Surface probability of raw uint8 or uint16 voxels, float32 (Z, Y, X) in [0, 1]; the same shape.

        Exact where the image goes as far as the radius, or to the border of the volume.
        """

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """The box grown by the radius, clipped to the volume."""
        return box.expand(self.radius_zyx(scan)).clip(volume)

    def probability(
        self, image: NDArray[np.unsignedinteger], outer: Box, core: Box, volume: Box, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """The response to ``image``, cropped to ``core``."""
        del volume
        return self.respond(image, scan)[core.relative_to(outer.start).slices]

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """The context, where the response to zeros is stored as 0."""
        return self.context(core, volume, scan) if _answers_zero(self, scan) else None


@lru_cache(maxsize=64)
def _answers_zero(detector: RadiusDetector, scan: ScanStatistics) -> bool:
    """Whether the response to zeros is stored as 0, on the finer scale too: tried on a volume of a few zeros.

    A detector that is exact under cropping answers the same wherever all that it sees is zeros.
    """
    levels = quantise(detector.respond(np.zeros((4, 4, 4), np.uint8), scan), np.uint16)
    return not levels.any()


def quantise(
    probability: NDArray[np.float32], dtype: type[np.uint8 | np.uint16] = np.uint8
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Store a probability in [0, 1] as uint8, ``round(255 p)``, or uint16, ``round(65535 p)``; halves to even.

    The recorded scale is 1/255 or 1/65535.
    """
    levels: NDArray[np.uint8] | NDArray[np.uint16] = np.rint(probability * np.float32(np.iinfo(dtype).max)).astype(
        dtype
    )
    return levels


def _mean_std(present: NDArray[np.integer], counts: NDArray[np.integer]) -> tuple[float, float]:
    """Mean and standard deviation of the grey values that are present, in float64; 0 and 0 for none."""
    if present.size == 0:
        return 0.0, 0.0
    values, weights = present.astype(np.float64), counts[present].astype(np.float64)
    total = weights.sum()
    mean = (values * weights).sum() / total
    variance = (weights * (values - mean) ** 2).sum() / total
    return float(mean), float(np.sqrt(variance))


def _permille(present: NDArray[np.integer], counts: NDArray[np.integer]) -> tuple[int, ...]:
    """Quantiles of the grey values that are present, at 0, 0.1, ... 100 %; empty for none."""
    if present.size == 0:
        return ()
    cumulative = np.cumsum(counts[present], dtype=np.int64)
    ranks = np.maximum(1, -(-np.arange(1001) * int(cumulative[-1]) // 1000))
    return tuple(present[np.searchsorted(cumulative, ranks)].tolist())
