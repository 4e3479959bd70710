"""Thinning and thickening of a mask without a change of topology."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels.thinning import layers_radius, thicken, thin
from nx47dask.steps.base import LocalStep
from nx47dask.steps.parameters import Unit

Layers = Annotated[int, Field(ge=1, le=2), Unit("layers")]


@dataclass(frozen=True)
class Thin(LocalStep):
    """Peel layers off both sides of every sheet without a change of topology; never adds a voxel.

    The numbers of pieces (6-connected, as the score counts them), tunnels and cavities stay the same: sheets that touch
    are not separated, and a sheet gets no hole where it is thin. Reaches 9 voxels for each layer, 7 without
    ``keep_ends``. One layer of 320³ voxels, a third of them foreground, takes about 1.5 s on one core.

    Parameters
    ----------
    layers : int
        Voxels to take from each side, and from the rim of a sheet that is thick there. On an oblique surface a layer is
        0.6 to 1 voxel deep. The volume's border is not a side: a sheet is not peeled where it leaves the volume.
    keep_ends : bool
        Keep parts that are thin already (no block of 2 x 2 x 2 voxels within one voxel of them is all foreground), so
        that the rim of a thin sheet and its holes stay where they are. With false they recede by the layers.
    """

    layers: Layers = 1
    keep_ends: bool = True

    def radius_zyx(self) -> Index:
        radius = layers_radius(self.layers, self.keep_ends)
        return radius, radius, radius

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        return thin(data != 0, self.layers, self.keep_ends).view(np.uint8)


@dataclass(frozen=True)
class Thicken(LocalStep):
    """Add layers to both sides of every sheet without a change of topology; never removes a voxel.

    The numbers of pieces (6-connected, as the score counts them), tunnels and cavities stay the same: sheets never
    merge, the last voxel of a gap between them stays open, and no hole closes. It is ``thin`` for the background: use
    both in turn to bring sheets to a wanted width. Reaches 7 voxels for each layer. One layer of 320³ voxels, a third
    of them foreground, takes about 1.1 s on one core.

    Parameters
    ----------
    layers : int
        Voxels to add to each side and to the rim of a sheet. On an oblique surface a layer is 0.6 to 1 voxel deep. The
        volume's border is not a side: nothing grows from there.
    """

    layers: Layers = 1

    def radius_zyx(self) -> Index:
        radius = layers_radius(self.layers)
        return radius, radius, radius

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        return thicken(data != 0, self.layers).view(np.uint8)
