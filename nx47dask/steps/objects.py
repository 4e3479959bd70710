"""Small objects and holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.kernels.components import AttributeName, Connectivity
from nx47dask.steps.base import ComponentStep


@dataclass(frozen=True)
class SmallObjects(ComponentStep):
    """Remove components of fewer than a number of voxels.

    Parameters
    ----------
    min_vox : int
        Components of at least this many voxels stay.
    border_min_vox : int or null
        Components that touch the volume's border may go on beyond it: for them at least this many voxels are enough,
        where that is fewer; null asks as many of them as of the others. With ``per_slice`` the border is that of the
        slice, with ``--bbox`` that of the box with its context.
    connectivity, per_slice
        See :class:`~nx47dask.steps.base.ComponentStep`.
    """

    min_vox: Annotated[int, Field(ge=1)] = 100
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

    Cavities in 3-D; with ``per_slice``, holes of the sections (a section's border is then that of its slice).

    Parameters
    ----------
    max_vox : int or null
        Fill only holes of at most this many voxels; null fills any.
    connectivity : {6, 18, 26}
        Connectivity of the background; 6 is the counterpart of a 26-connected foreground.
    per_slice
        See :class:`~nx47dask.steps.base.ComponentStep`.
    """

    background: ClassVar[bool] = True

    connectivity: Connectivity = 6
    max_vox: Annotated[int, Field(ge=1)] | None = None

    @property
    def attributes(self) -> tuple[AttributeName, ...]:
        return ("border",) if self.max_vox is None else ("border", "voxels")

    def changes(self, attributes: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        inside = ~attributes["border"].astype(bool)
        return inside if self.max_vox is None else inside & (attributes["voxels"].astype(np.int64) <= self.max_vox)
