"""Removal of small objects and filling of holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.kernels.components import AttributeName, Connectivity
from nx47dask.steps.base import ComponentStep
from nx47dask.steps.dimensions import Choices, Range
from nx47dask.steps.parameters import Role


@dataclass(frozen=True)
class SmallObjects(ComponentStep):
    """Remove components of fewer than a number of voxels.

    Parameters
    ----------
    min_vox : int
        Components of at least this many voxels stay. Raise it to remove larger specks; small pieces of sheet go too.
    border_min_vox : int or null
        Smaller limit for a component that touches the volume's border, because it may continue beyond it. Set it to
        keep corners of sheets; null applies ``min_vox`` to all components. With ``per_slice`` the border is that of the
        slice, with ``--bbox`` that of the box with its context.
    """

    tried_without: ClassVar[bool] = False

    min_vox: Annotated[int, Field(ge=1), Range(100, 20000, log=True, integer=True), Role.LEAST_OBJECT] = 100
    border_min_vox: Annotated[int, Field(ge=1)] | None = None

    @property
    def attributes(self) -> tuple[AttributeName, ...]:
        return ("voxels",) if self.border_min_vox is None else ("border", "voxels")

    def changes(self, attributes: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        voxels = attributes["voxels"].astype(np.int64)
        small: NDArray[np.bool_] = voxels < self.min_vox
        if self.border_min_vox is None:
            return small
        return small & ~(attributes["border"].astype(bool) & (voxels >= self.border_min_vox))


@dataclass(frozen=True)
class FillHoles(ComponentStep):
    """Fill holes: background components that do not touch the volume's border.

    These are cavities in 3-D; with ``per_slice``, holes in the section of each slice, and the border is the slice's.

    Parameters
    ----------
    max_vox : int or null
        Fill only holes of at most this many voxels; null fills any. Set it to keep large hollows open.
    connectivity : {6, 18, 26}
        Voxels of the background that count as touching. 6 (through faces) is the counterpart of a 26-connected
        foreground; with 26 a hole that leaks through a corner stays open.
    """

    background: ClassVar[bool] = True
    tried_without: ClassVar[bool] = False

    connectivity: Connectivity = 6
    max_vox: Annotated[Annotated[int, Field(ge=1)] | None, Choices((None, 100, 1000))] = None

    @property
    def attributes(self) -> tuple[AttributeName, ...]:
        return ("border",) if self.max_vox is None else ("border", "voxels")

    def changes(self, attributes: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        inside = ~attributes["border"].astype(bool)
        return inside if self.max_vox is None else inside & (attributes["voxels"].astype(np.int64) <= self.max_vox)
