"""Plugging of pinholes and diagonal gaps of a surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Index
from nx47dask.kernels.pinholes import fill_pinholes, join_diagonals
from nx47dask.steps.base import LocalStep


@dataclass(frozen=True)
class PlugPinholes(LocalStep):
    """Plug holes of one voxel, and join by faces what touches by an edge or a corner only; never removes a voxel.

    The score's foreground is 6-connected, so a surface that is connected only diagonally has holes and falls apart
    there. This step joins 6-connected components and closes tunnels. It never joins two 26-connected components: sheets
    with a gap between them stay apart, however narrow the gap. Holes wider than one voxel stay (see ``closing``).

    It reaches 2 voxels for the diagonals and 2 for the pinholes, 4 for both. 320³ voxels take 0.2 s on one core for
    smooth sheets, 0.5 s for ragged ones. A public prediction of 320³ goes from 362 tunnels to 21 with 906 voxels.

    Parameters
    ----------
    diagonals : bool
        Join foreground that touches by an edge or a corner only, where the score sees a crack.
    pinholes : bool
        Then fill holes of one voxel: a background voxel whose four neighbours in a coordinate plane are foreground and
        whose two neighbours across the plane are background.
    """

    diagonals: bool = True
    pinholes: bool = True

    def radius_zyx(self) -> Index:
        return (2 * self.diagonals + 2 * self.pinholes,) * 3

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        mask: NDArray[np.bool_] = data != 0
        if self.diagonals:
            mask = join_diagonals(mask)
        if self.pinholes:
            mask = fill_pinholes(mask)
        return mask.view(np.uint8)
