"""Detectors: pure functions from raw voxels to a surface probability, with a declared reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box, Index
from nx47dask.kernels.statistics import ScanStatistics

__all__ = ["Detector", "RadiusDetector", "quantise"]


@runtime_checkable
class Detector(Protocol):
    """Source of surface probability, exact under cropping.

    A block is computed from its context, which is *clipped to the volume, never padded*. The result equals the crop of
    the whole volume's result bit for bit. All boxes are in voxels of the volume, which begins at 0.
    """

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Return the largest distance, in voxels along each axis, at which the input changes a result."""
        ...

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """Return the box to read for the result in ``box``."""
        ...

    def probability(
        self, image: NDArray[np.unsignedinteger], outer: Box, core: Box, volume: Box, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """Compute the surface probability of ``core``, float32 (Z, Y, X) in [0, 1].

        Parameters
        ----------
        image : ndarray of uint8 or uint16, (Z, Y, X)
            Raw voxels of ``outer``.
        outer : Box
            Context of ``core``.
        core, volume : Box
        scan : ScanStatistics
        """
        ...

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """Return the box that gives ``core`` a stored probability of 0 everywhere when all its voxels are 0.

        None says that no empty box does.
        """
        ...


class RadiusDetector(ABC):
    """Detector whose result at a voxel depends on the voxels within a radius, and on nothing else."""

    __slots__ = ()
    revision: ClassVar[int]
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    @abstractmethod
    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Return the radius in voxels along each axis."""

    @abstractmethod
    def respond(self, image: NDArray[np.unsignedinteger], scan: ScanStatistics) -> NDArray[np.float32]:
        """Compute the surface probability of raw uint8 or uint16 voxels, float32 of the same shape, in [0, 1].

        A voxel is exact where the image covers the radius around it, or ends at the border of the volume.
        """

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """Return the box grown by the radius and clipped to the volume."""
        return box.expand(self.radius_zyx(scan)).clip(volume)

    def probability(
        self, image: NDArray[np.unsignedinteger], outer: Box, core: Box, volume: Box, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """Compute the response to ``image``, cropped to ``core``."""
        del volume
        return self.respond(image, scan)[core.relative_to(outer.start).slices]

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """Return the context of ``core`` if the response to zeros is stored as 0, else None."""
        return self.context(core, volume, scan) if _answers_zero(self, scan) else None


@lru_cache(maxsize=64)
def _answers_zero(detector: RadiusDetector, scan: ScanStatistics) -> bool:
    """Return True if the response to zeros is stored as 0, even as uint16; tried on a volume of a few zeros.

    A detector that is exact under cropping gives the same answer wherever it sees only zeros.
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
