"""Input volumes: TIFF files, folders of slices and Zarr arrays behind one ``read(box)``."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
import zarr.errors

from nx47dask.errors import BlockError, InputError
from nx47dask.files.paths import file_version, is_remote, locate
from nx47dask.geometry import Box, Index
from nx47dask.io.arrays import DECODE_ERRORS, native
from nx47dask.io.ome import VoxelUm, read_level
from nx47dask.io.tiff import TiffInfo, inspect_tiff, read_tiff
from nx47dask.io.zarr_stores import zarr_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Volume", "count_chunks", "discover", "natural_key", "read_edges"]

_LARGEST_SHARD = 512

_ZARR_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_ZARR_ROOTS = ("zarr.json", ".zarray", ".zgroup")
_TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Volume:
    """Input volume that is opened when it is read; it pickles as its path and metadata.

    Parameters
    ----------
    id : str
        Name of the volume and of its mask.
    kind : {"tiff", "tiff-slices", "zarr"}
        Form of storage.
    path : str
        Absolute path or URL of the TIFF file, the folder of slices, or the Zarr array or group.
    component : str
        Path of the array inside a Zarr group; empty for other volumes.
    shape : tuple of int
        Shape in voxels (Z, Y, X).
    dtype : str
        "uint8" or "uint16".
    voxel_um : tuple of float or None
        Voxel size in micrometers (Z, Y, X); None if the file does not give it.
    fingerprint : str
        SHA-256 of names, sizes and modification times or ETags (TIFF), or of the metadata (Zarr).
    """

    id: str
    kind: Literal["tiff", "tiff-slices", "zarr"]
    path: str
    component: str
    shape: Index
    dtype: str
    voxel_um: VoxelUm | None
    fingerprint: str

    @property
    def is_remote(self) -> bool:
        """True for a volume in an object store or on a web server."""
        return is_remote(locate(self.path))

    def read(self, box: Box) -> NDArray[Any]:
        """Read the voxels of any box inside the volume, in its dtype.

        Raises
        ------
        InputError
            A TIFF page cannot be read.
        BlockError
            A Zarr chunk cannot be read, or the box reaches outside the volume. A missing chunk reads as the fill value;
            a chunk that a server refuses or fails to send is an error.
        """
        if any(not 0 <= a <= b <= n for a, b, n in zip(box.start, box.stop, self.shape, strict=True)):
            raise BlockError(f"volume {self.id}: box {box} reaches outside the shape {self.shape}")
        if self.kind == "tiff":
            return read_tiff(self.path, self.shape, self.dtype, self.fingerprint, box)
        return self._read_slices(box) if self.kind == "tiff-slices" else self._read_zarr(box)

    def _read_slices(self, box: Box) -> NDArray[Any]:
        out = np.empty(box.shape, self.dtype)
        start, stop = (0, *box.start[1:]), (1, *box.stop[1:])
        plane = Box((0, start[1], start[2]), (1, stop[1], stop[2]))
        names = _slice_names(self.path, self.fingerprint)
        for z in range(box.start[0], box.stop[0]):
            path = str(locate(self.path) / names[z])
            out[z - box.start[0]] = read_tiff(path, (1, *self.shape[1:]), self.dtype, self.fingerprint, plane)[0]
        return out

    def _read_zarr(self, box: Box) -> NDArray[Any]:
        try:
            array = _opened_zarr(self.path, self.component, self.fingerprint)
            leading = (0,) * (array.ndim - 3)
            return native(np.asarray(array[(*leading, *box.slices)]))
        except DECODE_ERRORS as error:
            store = locate(self.path) / self.component
            unreachable = self.is_remote and isinstance(error, OSError)
            advice = "make it readable again" if unreachable else "copy the store again"
            raise BlockError(
                f"volume {self.id}: {store}, box {box}: a chunk cannot be read ({type(error).__name__}: {error})",
                hint=advice,
            ) from error


def read_edges(volume: Volume) -> Index:
    """Return the shape of the smallest unit to read of a volume, in voxels: a page of a TIFF, a chunk of a Zarr.

    For a Zarr with shards up to 512 voxels along each axis it is the shard: one request instead of many.
    """
    if volume.kind != "zarr":
        return (1, *volume.shape[1:])
    array = _opened_zarr(volume.path, volume.component, volume.fingerprint)
    shards = array.shards
    z, y, x = (shards if shards and max(shards[-3:]) <= _LARGEST_SHARD else array.chunks)[-3:]
    return int(z), int(y), int(x)


def count_chunks(volume: Volume, box: Box) -> tuple[int, int]:
    """Count the chunk files of a Zarr volume that begin in a box, and those of them that are absent.

    Absent chunks read as the fill value: masked scans have many of them, but so has an unfinished copy. Both numbers
    are 0 for a TIFF, and for a remote Zarr, where every test would be a request.
    """
    if volume.kind != "zarr" or volume.is_remote:
        return 0, 0
    array = _opened_zarr(volume.path, volume.component, volume.fingerprint)
    leading = (0,) * (array.ndim - 3)
    edges = (array.shards or array.chunks)[-3:]
    ranges = (range(-(-a // e), -(-b // e)) for a, b, e in zip(box.start, box.stop, edges, strict=True))
    folder = locate(volume.path) / volume.component
    there = [(folder / array.metadata.encode_chunk_key((*leading, *i))).exists() for i in itertools.product(*ranges)]
    return len(there), there.count(False)


def discover(inputs: Sequence[str | Path], *, level: int = 0, masks: bool = False) -> list[Volume]:
    """Find the volumes of any mix of inputs, and check each by its metadata.

    Parameters
    ----------
    inputs : sequence of path or URL
        Local, in ``s3://bucket/...`` or at ``http(s)://...``: multipage TIFF files; folders of them; folders with the
        single-slice TIFFs of one volume; Zarr arrays (v2, v3); OME-Zarr groups (0.4, 0.5); folders of any of these
        Zarr folders. On a web server, an input must itself be a TIFF file, a Zarr array or a Zarr group.
    level : int
        Resolution level of OME-Zarr groups; 0 is the finest.
    masks : bool
        Take every TIFF file as a separate volume, even with a single page, as runs write for a box of one slice.

    Returns
    -------
    list of Volume
        In the order of the inputs; inside a folder in the natural order of the ids.

    Raises
    ------
    InputError
        There is no volume, a volume cannot be used or reached, or two volumes have the same id.
    """
    volumes = [volume for item in inputs for volume in _volumes_at(_absolute(item), level, masks)]
    if not volumes:
        raise InputError("no input volumes were given", hint="give TIFF files, Zarr folders or folders of them")
    seen: dict[str, Volume] = {}
    for volume in volumes:
        other = seen.setdefault(volume.id, volume)
        if other is not volume:
            raise InputError(
                f"two inputs have the id {volume.id}: {other.path} and {volume.path}",
                hint="rename one, each needs its own mask",
            )
    return volumes


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers inside names by value: slice2 before slice10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _absolute(item: str | Path) -> Path:
    path = locate(item)
    return path if is_remote(path) else Path(os.path.abspath(path))


def _volumes_at(path: Path, level: int, masks: bool) -> list[Volume]:
    try:
        if is_remote(path):
            return _remote_volumes(path, level, masks)
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_file():
            return [_tiff_volume(path, inspect_tiff(path), level, masks)]
        return [_zarr_volume(path, level)] if _is_zarr(path) else _folder_volumes(path, level, masks)
    except OSError as error:
        if is_remote(path):
            raise InputError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
        if not isinstance(error, PermissionError):
            raise
        raise InputError(
            f"{path}: cannot be read ({error.strerror}: {error.filename})", hint="change its permissions"
        ) from error


def _remote_volumes(path: Path, level: int, masks: bool) -> list[Volume]:
    """Find remote volumes with few requests; a web server has no folders, so metadata identify a Zarr."""
    if path.suffix.lower() in _TIFF_SUFFIXES:
        return [_tiff_volume(path, inspect_tiff(path), level, masks)]
    if _is_zarr(path):
        return [_zarr_volume(path, level)]
    if str(path).startswith("http"):
        raise InputError(
            f"{path}: no Zarr (none of {', '.join(_ZARR_ROOTS)} is there) and no TIFF (its name does not end in .tif)",
            hint="a web server cannot be asked for a list of files, so name each",
        )
    path.stat()  # says whether the bucket or the folder is missing
    return _folder_volumes(path, level, masks)


def _folder_volumes(folder: Path, level: int, masks: bool) -> list[Volume]:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    entries.sort(key=lambda entry: natural_key(entry.name))
    tiffs = [entry for entry in entries if entry.suffix.lower() in _TIFF_SUFFIXES and entry.is_file()]
    zarrs = [entry for entry in entries if entry.is_dir() and _is_zarr(entry)]
    if not tiffs and not zarrs:
        contents = ", ".join(entry.name for entry in entries[:5]) or "nothing"
        raise InputError(f"{folder}: no TIFF file and no Zarr folder is directly in it (it has {contents})")
    infos = {path: inspect_tiff(path) for path in tiffs}
    flat = [path for path in tiffs if infos[path].shape[0] == 1]
    deep = [*(path for path in tiffs if infos[path].shape[0] > 1), *zarrs]
    if not masks and (len(flat) > 1 or (flat and deep and infos[flat[0]].flat)):
        if deep:
            raise InputError(
                f"{folder}: single slices and whole volumes are mixed: {flat[0].name} is one slice, {deep[0].name} a "
                "volume",
                hint="put them into folders of their own",
            )
        return [_slices_volume(folder, infos, level)]
    volumes = [_tiff_volume(path, infos[path], level, masks) for path in tiffs]
    volumes += [_zarr_volume(path, level) for path in zarrs]
    return sorted(volumes, key=lambda volume: natural_key(volume.id))


def _tiff_volume(path: Path, info: TiffInfo, level: int, masks: bool) -> Volume:
    if info.flat and not masks:
        raise InputError(
            f"{path}: a single 2-D image of shape {info.shape[1:]}; a volume has 3 axes (Z, Y, X)",
            hint="give a multipage TIFF, or a folder with all of its slices",
        )
    _refuse_level(path, level)
    volume_id = path.name.split(".")[0]
    return Volume(volume_id, "tiff", str(path), "", info.shape, info.dtype, None, _fingerprint_files([path]))


def _slices_volume(folder: Path, infos: dict[Path, TiffInfo], level: int) -> Volume:
    _refuse_level(folder, level)
    paths = list(infos)
    _refuse_gaps(paths)
    first = infos[paths[0]]
    for path, info in infos.items():
        if (info.shape, info.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{path}: the slice is {info.shape[1:]} {info.dtype}, "
                f"{paths[0].name} is {first.shape[1:]} {first.dtype}; "
                "all slices of a volume must be equal"
            )
    shape = (len(paths), *first.shape[1:])
    return Volume(folder.name, "tiff-slices", str(folder), "", shape, first.dtype, None, _fingerprint_files(paths))


def _refuse_gaps(paths: list[Path]) -> None:
    """Refuse slices whose names differ in more than their last number, or whose numbers are not consecutive."""
    numbered = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in paths]
    for path, match in zip(paths, numbered, strict=True):
        if match is None or numbered[0] is None or match.group(1, 3) != numbered[0].group(1, 3):
            raise InputError(
                f"{path}: single slices must differ in one number only, and its name does not fit {paths[0].name}",
                hint="move what is no slice of this volume elsewhere",
            )
    numbers = [int(match[2]) for match in numbered if match]
    for path, before, number in zip(paths[1:], numbers, numbers[1:], strict=False):
        if number != before + 1:
            raise InputError(
                f"{path}: slice {number} follows slice {before}; the numbers of slices must be consecutive"
            )


def _zarr_volume(path: Path, level: int) -> Volume:
    try:
        node: Any = zarr.open(zarr_store(path, read_only=True), mode="r")
        component, voxel_um = "", None
        if isinstance(node, zarr.Group):
            component, voxel_um = read_level(dict(node.attrs), level, str(path))
            node = node[component]
        else:
            _refuse_level(path, level)
        shape, dtype = _checked(node, path / component)
        fingerprint = _fingerprint_zarr(path, component, shape, dtype)
    except (InputError, PermissionError):
        raise
    except (zarr.errors.BaseZarrError, AttributeError, *DECODE_ERRORS) as error:
        raise InputError(f"{path}: the Zarr metadata cannot be used ({type(error).__name__}: {error})") from error
    return Volume(_zarr_id(path), "zarr", str(path), component, shape, dtype, voxel_um, fingerprint)


def _checked(array: Any, where: Path) -> tuple[Index, str]:
    if not isinstance(array, zarr.Array):
        raise InputError(f"{where}: a Zarr group where an array is expected")
    shape = tuple(int(length) for length in array.shape)
    if len(shape) < 3 or any(length != 1 for length in shape[:-3]):
        raise InputError(
            f"{where}: its shape is {shape}; a volume has 3 axes (Z, Y, X), and axes before them must have length 1",
            hint="export one channel and one time point",
        )
    if 0 in shape:
        raise InputError(f"{where}: its shape is {shape}; every axis needs at least 1 voxel")
    dtype = array.dtype.newbyteorder("=").name
    if dtype not in ("uint8", "uint16"):
        raise InputError(
            f"{where}: the voxels are {dtype}; a volume is uint8 or uint16",
            hint="convert it first, with one scale for the whole volume",
        )
    return (shape[-3], shape[-2], shape[-1]), dtype


def _zarr_id(path: Path) -> str:
    """Return the folder's name without .zarr; an array given directly inside a group has the group's name."""
    named = path.parent if _is_zarr(path.parent) else path
    return re.sub(r"(\.ome)?\.zarr$", "", named.name)


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _ZARR_ROOTS)


def _refuse_level(path: Path, level: int) -> None:
    if level != 0:
        raise InputError(
            f"{path}: level {level} does not exist: only an OME-Zarr group has levels, this volume has level 0 alone",
            hint="leave out --level",
        )


def _fingerprint_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{file_version(path)}\n".encode())
    return digest.hexdigest()


def _fingerprint_zarr(path: Path, component: str, shape: Index, dtype: str) -> str:
    digest = hashlib.sha256(f"{shape} {dtype}\n".encode())
    for folder in dict.fromkeys((path, path / component)):
        for name in _ZARR_METADATA:
            if (folder / name).is_file():
                digest.update((folder / name).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _slice_names(folder: str, fingerprint: str) -> list[str]:
    paths = [path for path in locate(folder).iterdir() if path.suffix.lower() in _TIFF_SUFFIXES and path.name[0] != "."]
    paths.sort(key=lambda path: natural_key(path.name))
    if _fingerprint_files(paths) != fingerprint:
        raise InputError(f"{folder}: its {len(paths)} slices are not those the run began with", hint="begin a new run")
    return [path.name for path in paths]


@lru_cache(maxsize=64)
def _opened_zarr(path: str, component: str, fingerprint: str) -> Any:
    return zarr.open_array(zarr_store(locate(path) / component, read_only=True), mode="r")
