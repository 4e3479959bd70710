"""Coherence of the mask between slices along z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nx47dask.geometry import Index
from nx47dask.kernels.probability import slice_support, slice_vote
from nx47dask.steps.base import LocalStep
from nx47dask.steps.parameters import Unit


@dataclass(frozen=True)
class ZCoherence(LocalStep):
    """Stabilise slices: a voxel keeps its state only with support in neighbouring slices.

    Parameters
    ----------
    window_vox : int
        Slices to look at on each side. Raise it to even out faults that last for several slices.
    rule : {"support", "vote"}
        ``support`` only removes: foreground stays where at least ``least`` of those slices have foreground within
        ``reach_vox`` of the same place. ``vote`` also adds: every voxel takes the state of the majority of the window
        (itself included; a tie changes nothing).
    least : int
        For ``support``: number of supporting slices that foreground needs, at most twice ``window_vox``; near the
        volume's ends never more than there are. Raise it to remove more.
    reach_vox : int
        For ``support``: distance that a sheet may move between slices. Raise it where sheets are oblique to the slices.
    """

    window_vox: Annotated[int, Field(ge=1, le=16), Unit("slices")] = 1
    rule: Literal["support", "vote"] = "support"
    least: Annotated[int, Field(ge=1, le=32), Unit("slices")] = 1
    reach_vox: Annotated[int, Field(ge=0, le=8)] = 1

    def radius_zyx(self) -> Index:
        reach = self.reach_vox if self.rule == "support" else 0
        return self.window_vox, reach, reach

    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        mask = data != 0
        if self.rule == "vote":
            return slice_vote(mask, self.window_vox).view(np.uint8)
        return slice_support(mask, self.window_vox, self.least, self.reach_vox).view(np.uint8)

    def problem(self) -> str | None:
        if self.rule == "support" and self.least > 2 * self.window_vox:
            neighbours = 2 * self.window_vox
            return f"least {self.least} exceeds the {neighbours} neighbouring slices of window_vox {self.window_vox}"
        return None
