"""Anisotropic closing and opening of a mask."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels import morphology
from nx47dask.kernels.morphology import Shape
from nx47dask.steps.base import LocalStep

Radius = Annotated[int, Field(ge=0, le=16)]


@dataclass(frozen=True)
class _Morphology(LocalStep):
    radius_zyx_vox: tuple[Radius, Radius, Radius] = (1, 1, 1)
    shape: Shape = "ellipsoid"

    def radius_zyx(self) -> Index:
        z, y, x = self.radius_zyx_vox
        return 2 * z, 2 * y, 2 * x

    @abstractmethod
    def operate(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The operation on a mask."""

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
        Radius of the structuring element per axis; the step reaches twice that.
    shape : {"ellipsoid", "box"}
        Structuring element.
    """

    def operate(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return morphology.closing(mask, self.radius_zyx_vox, self.shape)


@dataclass(frozen=True)
class Opening(_Morphology):
    """Remove what is thinner than twice the radius; never adds a voxel.

    Parameters
    ----------
    radius_zyx_vox, shape
        See :class:`Closing`.
    """

    def operate(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return morphology.opening(mask, self.radius_zyx_vox, self.shape)
