"""Patching of holes through a sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels.holes import patch_holes, patching_radius
from nx47dask.kernels.normals import LARGEST_WINDOW
from nx47dask.steps.base import LocalStep


@dataclass(frozen=True)
class PatchHoles(LocalStep):
    """Patch holes through a sheet, in its own plane and its own thickness; never removes a voxel.

    It closes tunnels where background is enclosed on all sides in the tangent plane. It joins no two 26-connected
    components and stays a voxel away from every other sheet, so that it cannot make a bridge; a wide closing can. Put
    ``plug_pinholes`` before it, for holes that are one voxel wide or diagonal.

    Reaches ``2 width + 2`` voxels plus the larger of the width and ``window + 4``: 33 by default. 320³ voxels take
    about 4 s on one core, most of it for the normals.

    Parameters
    ----------
    width_vox : int
        Largest width of a hole that is patched. Lower it where wider holes are real; the step is then faster.
    window_vox : int
        Half width of the window in which the normal of the sheet is estimated. The window must hold more than the
        hole's rim: lower it only for narrow holes in strongly bent sheets.
    """

    width_vox: Annotated[int, Field(ge=1, le=16)] = 10
    window_vox: Annotated[int, Field(ge=1, le=LARGEST_WINDOW)] = LARGEST_WINDOW

    def radius_zyx(self) -> Index:
        return (patching_radius(self.width_vox, self.window_vox),) * 3

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        return patch_holes(data != 0, self.width_vox, self.window_vox).view(np.uint8)
