"""Residual of NX47 as a probability, and the frozen V61.1 baseline that is built on it."""

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
from nx47dask.steps.parameters import Unit

__all__ = ["Residual", "ResidualBand"]

_Percent = Annotated[float, Field(ge=0, le=100), Unit("%")]


@dataclass(frozen=True, slots=True)
class Residual(RadiusDetector):
    """The residual of NX47, ``v - gaussian(v, sigma)`` averaged over z-1..z+1, as a probability.

    ``p = clip(0.5 + r / (gain * std), 0, 1)`` with v and std on the volume's own range [0, 1]: one monotone map for
    the whole volume. ``sigma = sigma_gain * std + sigma_base``, as in V61.1. A small sigma responds to grain, a sigma
    near half a sheet's thickness to sheets.

    Parameters
    ----------
    sigma_base : float
        Part of sigma, the scale of the structures, that is the same for all scans. Raise it towards half of a sheet's
        thickness to find sheets rather than grain.
    sigma_gain : float
        Part of sigma that grows with the contrast of the scan: voxels for each unit of the standard deviation of grey
        values in [0, 1]. Raise it to smooth scans of high contrast more; 0 gives all scans the same sigma.
    gain : float
        Range of the residual over which the probability rises from 0 to 1; it is 0.5 where the residual is 0. Raise it
        for a softer map; lower it where faint sheets should count as sure.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    sigma_base: Annotated[float, Field(ge=0.1, le=16), Unit("voxels")] = 0.4
    sigma_gain: Annotated[float, Field(ge=0, le=16), Unit("voxels")] = 0.9
    gain: Annotated[float, Field(ge=0.01, le=100), Unit("standard deviations")] = 2.0

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Return the radius of the Gaussian in voxels, plus 1 in z for the mean of neighbouring slices."""
        return _radius_zyx(_sigma_vox(self, scan))

    def respond(self, image: NDArray[np.unsignedinteger], scan: ScanStatistics) -> NDArray[np.float32]:
        """Compute the surface probability of raw uint8 or uint16 voxels, float32 (Z, Y, X) in [0, 1]."""
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
    The other parts of the original have no effect, or another effect than their names say:

    - *Fusion score and slice weight*: one number per slice, added to all its voxels before percentiles of that same
      slice are taken. A constant moves values and thresholds alike and cannot change the mask. It is left out.
    - *Hysteresis*: there is none. No step follows connectivity; each voxel is decided alone.
    - *The band is inverted*: ``w * AND(hi, lo) + (1 - w) * OR(hi, lo) > 0.5`` keeps the lower half of the band between
      the thresholds and drops the upper half, the more surface-like one. It is kept, because the baseline is frozen.
    - *255 twice*: the original multiplies a uint8 mask by 255 two times, which wraps to 1. The metric takes any
      non-zero value, so masks of 0/1 and of 0/255 score alike; here `band` gives 0/1.
    - *Statistics in float32* moved 2 to 33 voxels a volume with the summation order; here they come from the histogram.

    Parameters
    ----------
    sigma_base : float
        Part of sigma, the scale of the structures, that is the same for all scans.
    sigma_gain : float
        Part of sigma that grows with the contrast of the scan: voxels for each unit of the standard deviation of grey
        values in [0, 1].
    p_hi_base : float
        Least upper percentile of a slice. Raise it for less mask.
    p_hi_gain : float
        Rise of the upper percentile in slices with a long tail of bright values, for each unit of the tail's width.
    p_hi_max : float
        Largest upper percentile of a slice.
    lo_gap : float
        Distance of the lower percentile below the upper one. Raise it for more mask.
    lo_min : float
        Least lower percentile of a slice. Lower it, with a larger gap, for more mask.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    sigma_base: Annotated[float, Field(ge=0.1, le=16), Unit("voxels")] = 0.4
    sigma_gain: Annotated[float, Field(ge=0, le=16), Unit("voxels")] = 0.9
    p_hi_base: _Percent = 88.0
    p_hi_gain: _Percent = 6.0
    p_hi_max: _Percent = 96.0
    lo_gap: _Percent = 6.0
    lo_min: _Percent = 80.0

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Return the radius of `band` in voxels; its z part is also the context that `slice_thresholds` needs."""
        return _radius_zyx(_sigma_vox(self, scan))

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """Return the box that `band` needs for the mask in ``box``, clipped to the volume."""
        return box.expand(self.radius_zyx(scan)).clip(volume)

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """Return None: in a mostly empty slice the thresholds lie at the residual of empty space."""
        del core, volume, scan
        return None

    def slice_thresholds(
        self, image_slab: NDArray[np.unsignedinteger], first_z_within_slab: int, n: int, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """Compute the thresholds of whole slices; they are the same however slices are grouped into slabs.

        Parameters
        ----------
        image_slab : ndarray of uint8 or uint16, (Z, Y, X)
            Whole slices with ``radius_zyx(scan)[0]`` slices of context on both sides, clipped to the volume.
        first_z_within_slab, n : int
            First slice wanted, counted from the slab's first, and number of slices.

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
        """Compute the mask of a block with its halo.

        Parameters
        ----------
        image : ndarray of uint8 or uint16, (Z, Y, X)
            Core and halo, clipped to the volume.
        thresholds : ndarray of float32, (Z, 2)
            One row for every slice of ``image``, the halo included: rows ``z0:z1`` of the volume's table.

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
