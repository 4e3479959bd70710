"""Smoothing of the probability before thresholds: in all directions, or along the sheets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels.along_sheet import smooth_along_sheet, smoothing_radius
from nx47dask.kernels.normals import LARGEST_WINDOW
from nx47dask.kernels.probability import gaussian_radius, smooth
from nx47dask.steps.base import Kind, LocalStep
from nx47dask.steps.dimensions import Choices, Range
from nx47dask.steps.parameters import Role

Sigma = Annotated[float, Field(ge=0, le=8)]
USUAL_SIGMAS = Choices(tuple([sigma] * 3 for sigma in (0.0, 0.5, 1.0, 1.5, 2.0)))


@dataclass(frozen=True)
class Smooth(LocalStep):
    """Smooth the probability with a Gaussian.

    Parameters
    ----------
    sigma_zyx_vox : three floats
        Standard deviation for each axis; the step reaches four times as far. Raise it where the probability is noisy;
        close sheets then merge. 0 leaves an axis as it is.
    """

    takes: ClassVar[Kind] = "probability"
    gives: ClassVar[Kind] = "probability"

    tried_without: ClassVar[bool] = False
    """False: a search tries a sigma of 0 instead."""

    sigma_zyx_vox: Annotated[tuple[Sigma, Sigma, Sigma], USUAL_SIGMAS, Role.EXTENT] = (1.0, 1.0, 1.0)

    def radius_zyx(self) -> Index:
        return gaussian_radius(self.sigma_zyx_vox)

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        return smooth(data, self.sigma_zyx_vox)


@dataclass(frozen=True)
class SmoothSheet(LocalStep):
    """Smooth the probability along the sheets and not across them.

    A threshold after it gives fewer pinholes, tunnels and ragged faces, and joins no sheets: the average of a voxel
    lies in the tangent plane of its sheet. It changes no topology by itself. A probability below 0.1 stays as it is.

    Reaches ``ceil(2 sigma)`` voxels plus the larger of that and ``window + 4``: 15 by default. 320³ voxels take about
    3 s on one core where a fifth of them are above 0.1, 4.4 s where half are.

    Parameters
    ----------
    sigma_vox : float
        Standard deviation along the sheet. Raise it to close wider holes; the edges of sheets blur by as much.
    window_vox : int
        Half width of the window in which the normal of the sheet is estimated. Raise it where the probability is noisy;
        lower it where sheets bend strongly.
    """

    takes: ClassVar[Kind] = "probability"
    gives: ClassVar[Kind] = "probability"

    sigma_vox: Annotated[float, Field(gt=0, le=8), Range(1, 6, 0.5)] = 3.0
    window_vox: Annotated[int, Field(ge=1, le=LARGEST_WINDOW)] = 5

    def radius_zyx(self) -> Index:
        return (smoothing_radius(self.sigma_vox, self.window_vox),) * 3

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        return smooth_along_sheet(data, self.sigma_vox, self.window_vox)
