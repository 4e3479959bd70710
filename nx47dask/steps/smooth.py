"""Gaussian smoothing of the probability before thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels.probability import gaussian_radius, smooth
from nx47dask.steps.base import Kind, LocalStep

Sigma = Annotated[float, Field(ge=0, le=8)]


@dataclass(frozen=True)
class Smooth(LocalStep):
    """Smooth the probability with a Gaussian.

    Parameters
    ----------
    sigma_zyx_vox : three floats
        Standard deviation per axis; reaches four of them.
    """

    takes: ClassVar[Kind] = "probability"
    gives: ClassVar[Kind] = "probability"

    sigma_zyx_vox: tuple[Sigma, Sigma, Sigma] = (1.0, 1.0, 1.0)

    def radius_zyx(self) -> Index:
        return gaussian_radius(self.sigma_zyx_vox)

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        return smooth(data, self.sigma_zyx_vox)
