"""Support mask, which keeps the surface out of empty parts of the scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels.probability import supported
from nx47dask.steps.base import Kind, LocalStep
from nx47dask.steps.parameters import Unit


@dataclass(frozen=True)
class Support(LocalStep):
    """Set the probability to 0 where the scan is empty.

    Parameters
    ----------
    level : int
        Grey value up to which a voxel of the scan is empty. 0 suits masked scans; raise it where air is not black.
    radius_vox : int
        Dark specks inside papyrus that are narrower than twice this radius still count as filled. Raise it where the
        mask gets holes at dark specks.
    """

    takes: ClassVar[Kind] = "probability"
    gives: ClassVar[Kind] = "probability"
    reads_image: ClassVar[bool] = True

    level: Annotated[int, Field(ge=0, le=65535), Unit("grey value")] = 0
    radius_vox: Annotated[int, Field(ge=0, le=16)] = 2

    def radius_zyx(self) -> Index:
        return (2 * self.radius_vox,) * 3

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        assert image is not None
        return data * supported(image, self.level, self.radius_vox)
