"""The job of a volume, which every task gets: where to read, where to write, and how the volume is cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nx47dask.files.paths import locate, size_of
from nx47dask.geometry import Block, BlockGrid, Box, Index, copy_layout, storage_chunk
from nx47dask.io import ArrayStore, Volume, read_edges

__all__ = ["VolumeJob", "describe_block"]


@dataclass(frozen=True)
class VolumeJob:
    """The work on a volume of a run; it is small and can be pickled, and every task gets it.

    Attributes
    ----------
    volume : Volume
        The input.
    store : str
        Folder ``store/<id>.zarr`` of the run, or its URL.
    work : Box
        The part of the volume that is processed, in voxels of the volume. Coordinates after ingest count from its
        start.
    box : Box
        The part that is written out, in voxels of the volume; inside ``work``.
    block : int
        Edge of a work block in voxels.
    copied : bool
        Ingest copies the scan to the run's store, where it is read later; otherwise the input is read in place.
    zarr_format : {3, 2}
        Format of the image store: 3 is OME-Zarr 0.5, 2 is 0.4.
    detect_blocks : tuple of int
        Work blocks per axis that a task of detection fills; each work block is a shard.
    probability_dtype : {"uint8", "uint16", "float32"}
        Type of the stored probability; float32 keeps it as it was computed, to be fused later.
    """

    volume: Volume
    store: str
    work: Box
    box: Box
    block: int
    copied: bool
    zarr_format: Literal[2, 3] = 3
    detect_blocks: Index = (1, 1, 1)
    probability_dtype: Literal["uint8", "uint16", "float32"] = "uint8"

    @property
    def id(self) -> str:
        return self.volume.id

    @property
    def grid(self) -> BlockGrid:
        """Grid of the work blocks, in coordinates of ``work``."""
        return self.grid_of(self.work.shape)

    @property
    def detect_grid(self) -> BlockGrid:
        """Grid of the blocks of detection, in coordinates of ``work``: whole work blocks, clipped to ``work``."""
        z, y, x = (n * self.block for n in self.detect_blocks)
        return BlockGrid(self.work.shape, (z, y, x))

    def grid_of(self, shape: Index) -> BlockGrid:
        """Cut a box of a shape into work blocks."""
        return BlockGrid(shape, (self.block,) * 3)

    @property
    def image(self) -> Volume | ArrayStore:
        """Source of the scan: the copy, or the input in place."""
        return self.image_store if self.copied else self.volume

    @property
    def image_store(self) -> ArrayStore:
        """Store of the copy of the scan; ingest can write each of its shards as a whole."""
        if self.volume.kind == "zarr":
            shard, chunk = copy_layout(read_edges(self.volume), self.volume.shape, self.block)
        else:
            edge = storage_chunk(self.block)
            # As deep as a chunk, not as a block: ingest holds a slab of whole TIFF pages in memory.
            shard, chunk = (edge, self.block, self.block), (edge,) * 3
        return ArrayStore(f"{self.store}/image", self.volume.shape, chunk, shard, self.volume.dtype, self.zarr_format)

    @property
    def ingest_grid(self) -> BlockGrid:
        """Grid of the parts that ingest reads: slabs of whole TIFF pages, shards of a copy, or blocks of a Zarr."""
        if self.volume.kind != "zarr":
            return BlockGrid(self.volume.shape, (self.image_store.shard[0], *self.volume.shape[1:]))
        return BlockGrid(self.volume.shape, self.image_store.shard) if self.copied else self.grid_of(self.volume.shape)

    @property
    def volume_box(self) -> Box:
        """Box of the whole volume."""
        return Box.of_shape(self.volume.shape)

    def array(self, name: str) -> ArrayStore:
        """Return a store over ``work``: ``probability``, ``mask`` or ``work/<probability or mask>.<n>``."""
        chunk = storage_chunk(self.block)
        dtype = self.probability_dtype if Path(name).stem == "probability" else "uint8"
        return ArrayStore(f"{self.store}/{name}", self.work.shape, (chunk,) * 3, (self.block,) * 3, dtype)

    def prepare(self, store: ArrayStore, **attributes: float) -> None:
        """Create a store, unless an earlier client of the run did."""
        if not store.exists():
            store.create(voxel_um=self.volume.voxel_um, name=self.id, attributes=attributes, overwrite=True)

    def read_image(self, box: Box) -> NDArray[np.unsignedinteger]:
        """Read the scan in a box in coordinates of ``work``; it may reach out of ``work``, not out of the volume."""
        return self.image.read(box.shift(self.work.start))

    def context(self, box: Box, radius_zyx: Index) -> Box:
        """Add the halo to a box of ``work``, clipped to ``work``."""
        return box.expand(radius_zyx).clip(Box.of_shape(self.work.shape))

    def files(self, *paths: Path) -> dict[str, int]:
        """Measure files that a task wrote: sizes in bytes by path in the run folder, for its record."""
        run_folder = locate(self.store).parents[1]
        sizes = {str(path.relative_to(run_folder)): size_of(path) for path in paths}
        return {name: size for name, size in sizes.items() if size is not None}

    def summary(self, stage: str, number: int) -> Path:
        """Return the file in which a task leaves its summary for a merge."""
        return locate(self.store) / "summaries" / stage / f"{number}.npz.zst"


def describe_block(block: Block, job: VolumeJob) -> str:
    """Describe a block and its box in voxels of the volume, for messages."""
    return f"block {block.number} [{block.box.shift(job.work.start)}]"
