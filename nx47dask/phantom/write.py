"""Labelled synthetic scroll CT on disk, in the layout of the competition.

``phantom/render.py`` computes the voxels tile by tile; this module writes the files.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from nx47dask.errors import InputError, StorageError
from nx47dask.geometry import BlockGrid, Box, Index
from nx47dask.phantom.render import Phantom, render

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_phantom"]

_FIRST_ID = 470_000_000
_TILE_ZYX: Index = (32, 96, 96)  # small enough that the arrays of a tile stay in the cache
_LARGEST_CLASSIC_TIFF_BYTES = 2**31  # of voxels before compression; larger files are BigTIFF

Progress = Callable[[int, int], None]


def write_phantom(
    out: str | Path,
    shape: Index,
    seed: int = 0,
    *,
    count: int = 1,
    scroll_id: int = 90,
    progress: Progress | None = None,
) -> list[str]:
    """Write labelled synthetic volumes; memory is bounded by a slab of 32 pages, whatever the shape.

    Files get their final names only when all of them are complete, ``train.csv`` last.

    Parameters
    ----------
    out : str or Path
        Folder for ``train_images/<id>.tif`` (uint8, deflate), ``train_labels/<id>.tif`` (uint8, LZW; 0 background,
        1 surface, 2 ignore), with a page per Z, and ``train.csv`` (id, scroll_id). A missing folder is created.
    shape : tuple of int
        Shape of a volume in voxels (Z, Y, X).
    seed : int
        Seed of the first volume; each next volume has the next seed. The ids are 470000000 + seed.
    count : int
        Number of volumes.
    scroll_id : int
        Number of the scroll in ``train.csv``.
    progress : callable, optional
        Called after each slab with the number of voxels done and of all voxels.

    Returns
    -------
    list of str
        The ids of the volumes.

    Raises
    ------
    InputError
        A size, seed or count is out of range, or a file of that name exists.
    StorageError
        A file cannot be written (disk full, read-only, missing permission).

    Examples
    --------
    Two small volumes with labels, in the layout of the competition:

    >>> import nx47dask
    >>> nx47dask.write_phantom("scans", (8, 48, 48), seed=7, count=2)
    ['470000007', '470000008']
    >>> from pathlib import Path
    >>> sorted(path.relative_to("scans").as_posix() for path in Path("scans").rglob("*.tif"))
    ['train_images/470000007.tif', 'train_images/470000008.tif',
     'train_labels/470000007.tif', 'train_labels/470000008.tif']
    >>> print(Path("scans/train.csv").read_text().rstrip())
    id,scroll_id
    470000007,90
    470000008,90
    """
    _check(shape, seed, count)
    out = Path(out)
    ids = [str(_FIRST_ID + seed + i) for i in range(count)]
    table = out / "train.csv"
    volumes = [(out / "train_images" / f"{i}.tif", out / "train_labels" / f"{i}.tif") for i in ids]
    targets = [path for pair in volumes for path in pair] + [table]
    for path in targets:
        if path.exists():
            raise InputError(
                f"{path}: exists already, and a phantom never overwrites", hint="remove it or choose another --out"
            )
    with _named_when_complete(targets):
        for number, (image, label) in enumerate(volumes):
            phantom = Phantom(shape, seed + number)
            for done in _write_volume(phantom, _partial(image), _partial(label)):
                if progress is not None:
                    progress(number * math.prod(shape) + done, count * math.prod(shape))
        rows = ["id,scroll_id", *(f"{i},{scroll_id}" for i in ids)]
        _partial(table).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return ids


def _check(shape: Index, seed: int, count: int) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"shape {','.join(map(str, shape))}: expected three sizes Z,Y,X of at least 1 voxel each",
            hint="choose another --shape",
        )
    if count < 1:
        raise InputError(f"count {count}: at least 1 volume is needed", hint="choose a larger --count")
    if seed < 0:
        raise InputError(
            f"seed {seed}: the id of a volume is {_FIRST_ID} + seed, so a seed is 0 or more",
            hint="choose another --seed",
        )


def _write_volume(phantom: Phantom, image_path: Path, label_path: Path) -> Iterator[int]:
    """Write both files slab by slab; yield the number of voxels done."""
    size = math.prod(phantom.shape)
    big = size > _LARGEST_CLASSIC_TIFF_BYTES
    with tifffile.TiffWriter(image_path, bigtiff=big) as images, tifffile.TiffWriter(label_path, bigtiff=big) as labels:
        for start in range(0, phantom.shape[0], _TILE_ZYX[0]):
            stop = min(start + _TILE_ZYX[0], phantom.shape[0])
            image, label = _slab(phantom, Box((start, 0, 0), (stop, *phantom.shape[1:])))
            for page in image:
                images.write(page, photometric="minisblack", compression="zlib", predictor=True, metadata=None)
            for page in label:
                labels.write(page, photometric="minisblack", compression="lzw", metadata=None)
            yield stop * size // phantom.shape[0]


def _slab(phantom: Phantom, slab: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image, label = (np.empty(slab.shape, np.uint8) for _ in range(2))
    for block in BlockGrid(slab.shape, _TILE_ZYX):
        image[block.box.slices], label[block.box.slices] = render(phantom, block.box.shift(slab.start))
    return image, label


def _partial(path: Path) -> Path:
    """Return the name of a file that is still being written."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def _named_when_complete(targets: list[Path]) -> Iterator[None]:
    """Rename every partial file to its target at the end; after a failure remove them."""
    try:
        for folder in {path.parent for path in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        yield
        for path in targets:
            _partial(path).rename(path)
    except OSError as error:
        place = error.filename or targets[-1].parent
        raise StorageError(
            f"{place}: the phantom cannot be written ({error.strerror or error})", hint="choose another --out"
        ) from error
    finally:
        for path in targets:
            with contextlib.suppress(OSError):
                _partial(path).unlink(missing_ok=True)
