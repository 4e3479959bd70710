"""What every task of a volume needs to know: where to read, where to write, how the volume is cut."""

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
    """One volume of a run; small and picklable, it travels with every task.

    Attributes
    ----------
    volume : Volume
        The input.
    store : str
        Folder ``store/<id>.zarr`` of the run, or its URL.
    work : Box
        The part of the volume that is processed, in the volume's voxels. Everything after ingest counts from its
        start.
    box : Box
        The part that is written out, in the volume's voxels; inside ``work``.
    block : int
        Edge of a work block in voxels.
    copied : bool
        The scan is copied to the run's store at ingest, and read there; otherwise it is read in place.
    zarr_format : {3, 2}
        Format of the image store: 3 is OME-Zarr 0.5, 2 is 0.4.
    detect_blocks : tuple of int
        Work blocks per axis that one task of detection fills; every one stays a shard of its own.
    probability_dtype : {"uint8", "uint16", "float32"}
        How finely the probability is stored; float32 as it was computed, to be fused later.
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
        """The work blocks, in coordinates of ``work``."""
        return self.grid_of(self.work.shape)

    @property
    def detect_grid(self) -> BlockGrid:
        """The blocks of detection, in coordinates of ``work``: whole work blocks, clipped to ``work``."""
        z, y, x = (n * self.block for n in self.detect_blocks)
        return BlockGrid(self.work.shape, (z, y, x))

    def grid_of(self, shape: Index) -> BlockGrid:
        """Any box cut into work blocks."""
        return BlockGrid(shape, (self.block,) * 3)

    @property
    def image(self) -> Volume | ArrayStore:
        """Where the scan is read: the copy, or the input in place."""
        return self.image_store if self.copied else self.volume

    @property
    def image_store(self) -> ArrayStore:
        """The copy of the scan, in shards that ingest can write as wholes."""
        if self.volume.kind == "zarr":
            shard, chunk = copy_layout(read_edges(self.volume), self.volume.shape, self.block)
        else:
            edge = storage_chunk(self.block)
            # As deep as a chunk, not a block: a slab of whole TIFF pages is what ingest holds in memory.
            shard, chunk = (edge, self.block, self.block), (edge,) * 3
        return ArrayStore(f"{self.store}/image", self.volume.shape, chunk, shard, self.volume.dtype, self.zarr_format)

    @property
    def ingest_grid(self) -> BlockGrid:
        """The parts of the volume that ingest reads: slabs of whole TIFF pages, shards of a copy, blocks of a Zarr."""
        if self.volume.kind != "zarr":
            return BlockGrid(self.volume.shape, (self.image_store.shard[0], *self.volume.shape[1:]))
        return BlockGrid(self.volume.shape, self.image_store.shard) if self.copied else self.grid_of(self.volume.shape)

    @property
    def volume_box(self) -> Box:
        """All of the volume."""
        return Box.of_shape(self.volume.shape)

    def array(self, name: str) -> ArrayStore:
        """A result over ``work``: ``probability``, ``mask`` or an intermediate ``work/<probability or mask>.<n>``."""
        chunk = storage_chunk(self.block)
        dtype = self.probability_dtype if Path(name).stem == "probability" else "uint8"
        return ArrayStore(f"{self.store}/{name}", self.work.shape, (chunk,) * 3, (self.block,) * 3, dtype)

    def prepare(self, store: ArrayStore, **attributes: float) -> None:
        """Make a store unless an earlier client of the run has made it."""
        if not store.exists():
            store.create(voxel_um=self.volume.voxel_um, name=self.id, attributes=attributes, overwrite=True)

    def read_image(self, box: Box) -> NDArray[np.unsignedinteger]:
        """Voxels of the scan; the box, in coordinates of ``work``, may reach outside it but not outside the volume."""
        return self.image.read(box.shift(self.work.start))

    def context(self, box: Box, radius_zyx: Index) -> Box:
        """A box of ``work`` with its halo, clipped to ``work``."""
        return box.expand(radius_zyx).clip(Box.of_shape(self.work.shape))

    def files(self, *paths: Path) -> dict[str, int]:
        """Sizes in bytes of files that a task left, by their path in the run folder; for its record."""
        run_folder = locate(self.store).parents[1]
        sizes = {str(path.relative_to(run_folder)): size_of(path) for path in paths}
        return {name: size for name, size in sizes.items() if size is not None}

    def summary(self, stage: str, number: int) -> Path:
        """File of what a task leaves for a merge."""
        return locate(self.store) / "summaries" / stage / f"{number}.npz.zst"


def describe_block(block: Block, job: VolumeJob) -> str:
    """A block and its box in the volume's voxels, for messages."""
    return f"block {block.number} [{block.box.shift(job.work.start)}]"
