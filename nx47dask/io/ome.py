"""OME-Zarr multiscales metadata, versions 0.4 and 0.5: written for the package's stores, read from any store.

Source: https://ngff.openmicroscopy.org/0.5/ and /0.4/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nx47dask.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["multiscales_attributes", "read_level"]

_MICROMETERS = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
VoxelUm = tuple[float, float, float]


def multiscales_attributes(
    name: str, voxel_um: VoxelUm | None, version: Literal["0.4", "0.5"] = "0.5"
) -> dict[str, Any]:
    """Return the group attributes of an image with a single resolution, at ``0``, and the axes Z, Y, X.

    Parameters
    ----------
    name : str
        Name of the image.
    voxel_um : tuple of float or None
        Voxel size in micrometers (Z, Y, X). Without it the scale is 1 and the axes have no unit.
    """
    unit = {} if voxel_um is None else {"unit": "micrometer"}
    image = {
        "name": name,
        "axes": [{"name": axis, "type": "space", **unit} for axis in "zyx"],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [{"type": "scale", "scale": [float(v) for v in voxel_um or (1, 1, 1)]}],
            }
        ],
    }
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **image}]}
    return {"ome": {"version": "0.5", "multiscales": [image]}}


def read_level(attributes: Mapping[str, Any], level: int, where: str) -> tuple[str, VoxelUm | None]:
    """Return the path of the array of a resolution level, and its voxel size.

    Parameters
    ----------
    attributes : mapping
        Attributes of an OME-Zarr group, version 0.4 or 0.5.
    level : int
        Resolution level; 0 is the finest.
    where : str
        Path of the group, for error messages.

    Returns
    -------
    tuple
        Path of the array inside the group; voxel size in micrometers (Z, Y, X), None if the axes have no unit.

    Raises
    ------
    InputError
        The group has no multiscales or lacks this level, or its last axes are not z, y, x.
    """
    images = attributes.get("ome", attributes).get("multiscales")
    if not images:
        raise InputError(
            f"{where}: a Zarr group without OME multiscales (its attributes: {sorted(attributes) or 'none'})",
            hint="give the path of one array inside it",
        )
    image = images[0]
    datasets = image["datasets"]
    if not 0 <= level < len(datasets):
        raise InputError(
            f"{where}: level {level} does not exist, the group has levels 0 to {len(datasets) - 1}",
            hint="choose another --level",
        )
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes", [])]
    names = [str(axis.get("name")) for axis in axes]
    if axes and names[-3:] != ["z", "y", "x"]:
        raise InputError(f"{where}: the axes are {', '.join(names)}; a volume's last three axes are z, y, x")
    scales = [_scale(item) for item in (datasets[level], image)]
    return str(datasets[level]["path"]), _voxel_um(axes[-3:], scales)


def _scale(item: Mapping[str, Any]) -> list[float] | None:
    for transformation in item.get("coordinateTransformations", []):
        if transformation.get("type") == "scale" and len(transformation.get("scale", [])) >= 3:
            return [float(value) for value in transformation["scale"][-3:]]
    return None


def _voxel_um(axes: list[dict[str, Any]], scales: list[list[float] | None]) -> VoxelUm | None:
    factors = [_MICROMETERS.get(str(axis.get("unit"))) for axis in axes]
    if len(factors) != 3 or scales[0] is None:
        return None
    sizes = [
        factor * own * whole
        for factor, own, whole in zip(factors, scales[0], scales[1] or (1.0, 1.0, 1.0), strict=True)
        if factor is not None
    ]
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None
