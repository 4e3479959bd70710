"""The NX47 residual as a probability, and the frozen V61.1 baseline built on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from nx47dask.detectors.base import RadiusDetector
from nx47dask.geometry import Box, Index
from nx47dask.kernels import residual as kernel
from nx47dask.kernels.statistics import ScanStatistics

__all__ = ["Residual", "ResidualBand"]

_Percent = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True, slots=True)
class Residual(RadiusDetector):
    """The residual of NX47, ``v - gaussian(v, sigma)`` averaged over z-1..z+1, as a probability.

    ``p = clip(0.5 + r / (gain * std), 0, 1)`` with v and std on the volume's own range [0, 1]: one monotone map for
    the whole volume. ``sigma = sigma_gain * std + sigma_base``, as in V61.1. A small sigma sees grain, one near
    half a sheet's thickness sees sheets.

    Parameters
    ----------
    sigma_base : float
        Voxels, 0.1 to 16, default 0.4.
    sigma_gain : float
        Voxels per unit of normalised standard deviation, 0 to 16, default 0.9.
    gain : float
        Residual that maps from 0.5 to 1, as twice this many standard deviations, 0.01 to 100, default 2.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    sigma_base: Annotated[float, Field(ge=0.1, le=16)] = 0.4
    sigma_gain: Annotated[float, Field(ge=0, le=16)] = 0.9
    gain: Annotated[float, Field(ge=0.01, le=100)] = 2.0

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Radius of the Gaussian, plus 1 in z for the mean of neighbouring slices."""
        return _radius_zyx(_sigma_vox(self, scan))

    def respond(self, image: NDArray[np.unsignedinteger], scan: ScanStatistics) -> NDArray[np.float32]:
        """Surface probability of raw uint8 or uint16 voxels, float32 (Z, Y, X) in [0, 1]."""
        result = _projection(image, scan, _sigma_vox(self, scan))
        result /= np.float32(self.gain * (scan.std_normalised + 1e-6))
        result += np.float32(0.5)
        return np.clip(result, 0, 1, out=result)


@dataclass(frozen=True, slots=True)
class ResidualBand:
    """The frozen baseline NX47 V61.1: a mask, bit for bit, in two phases because its percentiles are of whole slices.

    First `slice_thresholds` over whole slices, then `band` over blocks of any shape. Per slice:
    ``p_hi = clip(p_hi_base + p_hi_gain (p95 - p90) / (std + 1e-6), p_hi_base, p_hi_max)``,
    ``p_lo = max(p_hi - lo_gap, lo_min)``, and ``q_hi, q_lo`` are the projected residual's values at them.
    Foreground is where the residual exceeds q_hi, or exceeds q_lo by less than half of the band.

    Notes
    -----
    What the original does besides has no effect, or not the effect its names promise:

    - *Fusion score and slice weight*: one number per slice, added to all its voxels before percentiles of that same
      slice are taken. A constant moves the values and the thresholds alike, so it cannot change the mask. Left out.
    - *Hysteresis*: there is none. No step follows connectivity; each voxel is decided alone.
    - *The band is inverted*: ``w * AND(hi, lo) + (1 - w) * OR(hi, lo) > 0.5`` keeps the lower half of the band between
      the thresholds and drops the upper half, the more surface-like one. Kept, since the baseline is frozen.
    - *255 twice*: the original multiplies a uint8 mask by 255 two times, which wraps to 1. The metric takes any
      non-zero value, so masks of 0/1 and of 0/255 score alike; here `band` gives 0/1.
    - *Statistics in float32* moved 2 to 33 voxels a volume with the summation order; here they come from the histogram.

    Parameters
    ----------
    sigma_base, sigma_gain : float
        As in `Residual`, defaults 0.4 and 0.9.
    p_hi_base, p_hi_max : float
        Limits of the upper percentile, 0 to 100, defaults 88 and 96.
    p_hi_gain : float
        Percent per unit of relative tail width, 0 to 100, default 6.
    lo_gap : float
        Percent between the two percentiles, 0 to 100, default 6.
    lo_min : float
        Least lower percentile, 0 to 100, default 80.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    sigma_base: Annotated[float, Field(ge=0.1, le=16)] = 0.4
    sigma_gain: Annotated[float, Field(ge=0, le=16)] = 0.9
    p_hi_base: _Percent = 88.0
    p_hi_gain: _Percent = 6.0
    p_hi_max: _Percent = 96.0
    lo_gap: _Percent = 6.0
    lo_min: _Percent = 80.0

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Radius of `band`; its z part is the z-context that `slice_thresholds` wants."""
        return _radius_zyx(_sigma_vox(self, scan))

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """What `band` must see for the mask in a box."""
        return box.expand(self.radius_zyx(scan)).clip(volume)

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """None: where a slice is mostly empty, its thresholds lie at the residual of empty space."""
        del core, volume, scan
        return None

    def slice_thresholds(
        self, image_slab: NDArray[np.unsignedinteger], first_z_within_slab: int, n: int, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """Thresholds of whole slices; the same however slices are grouped into slabs.

        Parameters
        ----------
        image_slab : ndarray of uint8 or uint16, (Z, Y, X)
            Whole slices with ``radius_zyx(scan)[0]`` slices of context on both sides, clipped to the volume.
        first_z_within_slab, n : int
            The slices wanted, counted from the slab's first.

        Returns
        -------
        ndarray of float32, (n, 2)
            ``(q_hi, q_lo)`` of each slice.
        """
        result = np.empty((n, 2), np.float32)
        sigma_vox = _sigma_vox(self, scan)
        slices = kernel.projected_slices(image_slab, first_z_within_slab, n, scan.minimum, scan.scale, sigma_vox)
        for row, proj in zip(result, slices, strict=True):
            p_hi, p_lo = kernel.slice_percentiles(
                proj, self.p_hi_base, self.p_hi_gain, self.p_hi_max, self.lo_gap, self.lo_min
            )
            row[:] = kernel.threshold_pair(proj, p_hi, p_lo)
        return result

    def band(
        self, image: NDArray[np.unsignedinteger], scan: ScanStatistics, thresholds: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """The mask of a block, halo included.

        Parameters
        ----------
        image : ndarray of uint8 or uint16, (Z, Y, X)
            Core and halo, clipped to the volume.
        thresholds : ndarray of float32, (Z, 2)
            One row for every slice of ``image``, its halo included: rows ``z0:z1`` of the volume's table.

        Returns
        -------
        ndarray of uint8 {0, 1}, (Z, Y, X)
            Exact in the core; crop it.
        """
        return kernel.band_mask(_projection(image, scan, _sigma_vox(self, scan)), thresholds)


def _sigma_vox(detector: Residual | ResidualBand, scan: ScanStatistics) -> float:
    return detector.sigma_gain * scan.std_normalised + detector.sigma_base


def _radius_zyx(sigma_vox: float) -> Index:
    radius = kernel.gaussian_radius_vox(sigma_vox)
    return radius + 1, radius, radius


def _projection(image: NDArray[np.unsignedinteger], scan: ScanStatistics, sigma_vox: float) -> NDArray[np.float32]:
    return kernel.projection(kernel.residual(kernel.normalise(image, scan.minimum, scan.scale), sigma_vox))
