"""Measures of a mask from sums over blocks: per slice and per volume. ``docs/metrics.md`` defines them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

__all__ = ["SLICE_COLUMNS", "MaskShape", "SliceRow", "slice_rows", "volume_shape"]

SLICE_COLUMNS = (
    "volume",
    "z",
    "foreground_vox",
    "density",
    "dice_with_previous",
    "components_8",
    "holes",
    "perimeter_vox",
)


class SliceRow(TypedDict):
    """A row of ``metrics/slices.csv``, under ``SLICE_COLUMNS``.

    Attributes
    ----------
    volume : str
    z : int
        In voxels of the volume.
    foreground_vox, components_8, holes, perimeter_vox : int
    density : float
        Share of the slice.
    dice_with_previous : float or None
        None: there is no slice before.
    """

    volume: str
    z: int
    foreground_vox: int
    density: float
    dice_with_previous: float | None
    components_8: int
    holes: int
    perimeter_vox: int


class MaskShape(TypedDict):
    """Measures of the mask of a volume, as in ``metrics/volumes.json``.

    Attributes
    ----------
    voxels : int
    density : float
        Share of the volume.
    components_26 : int
    largest_components_vox : list of int
        Voxels of the largest components, largest first.
    betti : list of int
        Components, tunnels, cavities.
    """

    voxels: int
    density: float
    components_26: int
    largest_components_vox: list[int]
    betti: list[int]


def slice_rows(
    volume: str, first_z: int, slice_vox: int, counts: Mapping[str, NDArray[np.int64]]
) -> Iterator[tuple[str, int, int, str, str, int, int, int]]:
    """Yield the rows of ``metrics/slices.csv`` for a volume.

    Parameters
    ----------
    volume : str
        Volume id.
    first_z : int
        z of the first slice, in voxels of the volume.
    slice_vox : int
        Number of pixels of a slice.
    counts : mapping of str to ndarray of int64, shape (Z,)
        ``voxels``, ``euler``, ``perimeter``, ``overlap`` (as in :class:`~nx47dask.kernels.topology.CellCounts`) and
        ``components`` (8-connected).
    """
    voxels = counts["voxels"]
    holes = counts["components"] - counts["euler"]
    for z in range(len(voxels)):
        together = int(voxels[z] + voxels[z - 1]) if z else 0
        dice = "" if z == 0 else f"{2 * int(counts['overlap'][z]) / together:.6f}" if together else "1.000000"
        yield (
            volume,
            first_z + z,
            int(voxels[z]),
            f"{int(voxels[z]) / slice_vox:.6f}",
            dice,
            int(counts["components"][z]),
            int(holes[z]),
            int(counts["perimeter"][z]),
        )


def volume_shape(size: int, voxels: int, components: int, cavities: int, euler: int, largest: list[int]) -> MaskShape:
    """Return the measures of a mask for ``metrics/volumes.json``.

    Parameters
    ----------
    size, voxels : int
        Number of voxels of the volume and of the mask.
    components : int
        Number of 26-connected components (Betti number 0).
    cavities : int
        Number of 6-connected background components that do not reach the border (Betti number 2).
    euler : int
        Euler number of the mask as a union of closed cubes; it gives the number of tunnels (Betti number 1).
    largest : list of int
        Sizes of the largest components, largest first.
    """
    return {
        "voxels": voxels,
        "density": voxels / size,
        "components_26": components,
        "largest_components_vox": largest,
        "betti": [components, components + cavities - euler, cavities],
    }
