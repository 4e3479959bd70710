"""Anisotropic closing and opening of a mask."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels import morphology
from nx47dask.kernels.morphology import Shape
from nx47dask.steps.base import LocalStep
from nx47dask.steps.dimensions import Choices
from nx47dask.steps.parameters import Role

Radius = Annotated[int, Field(ge=0, le=16)]
Radii = Annotated[tuple[Radius, Radius, Radius], Role.EXTENT]
USUAL_RADII = Choices(([1, 1, 1], [2, 1, 1], [2, 2, 2]))


@dataclass(frozen=True)
class _Morphology(LocalStep):
    """Closing or opening.

    Parameters
    ----------
    shape : {"ellipsoid", "box"}
        Structuring element. ``box`` reaches further along the diagonals and leaves straight edges.
    """

    radius_zyx_vox: Radii = (1, 1, 1)
    shape: Shape = "ellipsoid"

    def radius_zyx(self) -> Index:
        z, y, x = self.radius_zyx_vox
        return 2 * z, 2 * y, 2 * x

    @abstractmethod
    def operate(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Apply the operation to a mask."""

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        return self.operate(data != 0).view(np.uint8)


@dataclass(frozen=True)
class Closing(_Morphology):
    """Close gaps up to twice the radius; never removes a voxel.

    Parameters
    ----------
    radius_zyx_vox : three ints
        Radius of the structuring element for each axis; the step reaches twice that. Gaps of up to twice the radius
        close. Raise it to close wider gaps; sheets that are as close to each other are then joined.
    """

    radius_zyx_vox: Annotated[Radii, USUAL_RADII] = (1, 1, 1)

    def operate(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return morphology.closing(mask, self.radius_zyx_vox, self.shape)


@dataclass(frozen=True)
class Opening(_Morphology):
    """Remove parts thinner than twice the radius; never adds a voxel.

    Parameters
    ----------
    radius_zyx_vox : three ints
        Radius of the structuring element for each axis; the step reaches twice that. Parts thinner than twice the
        radius go. Raise it to cut thicker bridges between sheets; sheets as thin as that are then lost.
    """

    tried_without: ClassVar[bool] = False
    """False: a search keeps an opening as it is. Alone it lowered the score of every volume (``docs/topology.md``)."""

    def operate(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return morphology.opening(mask, self.radius_zyx_vox, self.shape)
