"""Sheetness of bright sheets, without training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from nx47dask.detectors.base import RadiusDetector
from nx47dask.errors import InputError
from nx47dask.geometry import Box, Index
from nx47dask.kernels import sheetness as plates
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.kernels.torch_threads import torch_threads
from nx47dask.steps.parameters import Unit

__all__ = ["Sheetness"]


@dataclass(frozen=True, slots=True)
class Sheetness(RadiusDetector):
    """Multi-scale sheetness of the Hessian; with the side rule, on the inner face of the sheets only.

    Grey values are in standard deviations of the whole volume, so that settings carry over between scans.
    `nx47dask.kernels.sheetness.plate_probability` has the algorithm.

    Notes
    -----
    Papyrus is bright at both faces, and the annotated surface is one of them, the recto. One sheet does not show which;
    the side rule takes the direction in which rims drop most steeply, over all sheets within ``side_radius_vox``.
    It is a photometric rule, found on simulated scans, where the recto rim is drawn brighter: there the summed rims
    leave a net direction of 0.19 of their total. In two small crops of real scans it is 0.01 to 0.02, and the choice
    flips along a sheet. So it is off by default (``side_radius_vox=0`` keeps both faces, is about three times as
    fast and needs a far smaller halo); turn it on only for scans where it has been checked against labels.

    Parameters
    ----------
    scales : tuple of int
        Dilations of successive smoothings; ridges are detected after each. Larger or more numbers find thicker sheets.
        [1, 1] smooths with standard deviations of 1 and 1.4 voxels.
    contrast : float
        Strength of a ridge that has a probability of 0.5. Lower it to see fainter sheets; noise then counts more.
    side_radius_vox : int
        Distance within which all rims decide together which face of the sheets is the inner one. Only that face is
        kept. 0 keeps both faces. 48 was best on simulated scans; check it on yours.
    side_contrast : float
        Drop of grey values at which a voxel is fully on the inner face; counts with ``side_radius_vox`` above 0. Lower
        it where rims are faint.
    device : {"cpu", "cuda", "auto"}
        Device that computes it; ``auto`` takes a GPU if there is one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    scales: Annotated[
        tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(min_length=1, max_length=6), Unit("voxels")
    ] = (1, 1)
    contrast: Annotated[float, Field(ge=0.001, le=10), Unit("standard deviations per voxel²")] = 0.05
    side_radius_vox: Annotated[int, Field(ge=0, le=64)] = 0
    side_contrast: Annotated[float, Field(ge=0.001, le=10), Unit("standard deviations per voxel")] = 0.15
    device: Literal["cpu", "cuda", "auto"] = "cpu"

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Return the reach of smoothing and second differences, plus that of the side rule where it is used."""
        del scan
        radius = 2 * sum(self.scales) + 1
        if self.side_radius_vox:
            radius += 2 * plates.SIDE_DILATION + self.side_radius_vox
        return radius, radius, radius

    def respond(self, image: NDArray[np.unsignedinteger], scan: ScanStatistics) -> NDArray[np.float32]:
        """Compute the surface probability of raw uint8 or uint16 voxels, float32 (Z, Y, X) in [0, 1].

        Raises
        ------
        InputError
            The device is "cuda" and there is none.
        """
        import torch

        standard = image.astype(np.float32)
        standard -= np.float32(scan.mean)
        standard /= np.float32(max(scan.std, 1e-6))
        volume = torch.from_numpy(standard).to(_device(self.device))
        with torch.inference_mode(), torch_threads(1):
            result: NDArray[np.float32] = plates.plate_probability(
                volume, self.scales, self.contrast, self.side_radius_vox, self.side_contrast
            ).numpy(force=True)
        return result

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """Return the empty box as any detector with a radius; tried on the CPU, because a client may have no GPU."""
        return RadiusDetector.empty_box(replace(self, device="cpu"), core, volume, scan)


def _device(name: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError(
            "detector sheetness: device is 'cuda' but torch finds no CUDA device", hint="use 'auto' or 'cpu'"
        )
    return "cuda" if available and name != "cpu" else "cpu"
