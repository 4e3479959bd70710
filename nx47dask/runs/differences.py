"""Find the differences of two JSON values, and of two manifests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from nx47dask.runs.manifest import InputRecord, Manifest

__all__ = ["Difference", "ManifestDifference", "find_differences", "manifest_differences"]

SECTIONS = {
    "workflow": "workflow",
    "nx47dask": "software",
    "versions": "software",
    "platform": "software",
    "inputs": "inputs",
    "labels": "labels",
    "artefacts_sha256": "artefacts",
}
"""Section in which a difference of an entry of the manifest is listed; for all other entries it is ``settings``."""
NOT_COMPARED = {"arguments", "baseline", "ended_s", "memory", "passes", "plan_sha256", "stages", "wall_s"}
"""Entries of a manifest that describe one execution, or follow from other entries."""
INPUT_KEYS = ("kind", "dtype", "voxel_um", "fingerprint", "box", "chunks", "absent_chunks")
VOXEL_HASH = "voxels_sha256_by_block"


@dataclass(frozen=True)
class Difference:
    """Two values at a path at which two JSON values differ.

    Attributes
    ----------
    path : str
        Such as ``workflow.detect[0].weight``.
    before, now : JSON value
        None where the value is missing.
    """

    path: str
    before: Any
    now: Any

    @property
    def values(self) -> tuple[Any, Any]:
        """Both values, the earlier one first."""
        return self.before, self.now

    def __str__(self) -> str:
        return f"{self.path} was {json.dumps(self.before)}, is {json.dumps(self.now)}"


def find_differences(before: Any, now: Any, where: str = "") -> list[Difference]:
    """Find the paths at which two JSON values differ, with both values.

    Lists of equal length are compared value by value, other lists as a whole.

    Parameters
    ----------
    before, now : JSON value
    where : str
        Path of both values; the paths of the differences begin with it.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(before.keys() | now.keys())
        inner = [(f"{where}.{name}" if where else name, before.get(name), now.get(name)) for name in names]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        inner = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(before, now, strict=True))]
    else:
        return [] if before == now else [Difference(where, before, now)]
    return [difference for path, a, b in inner for difference in find_differences(a, b, path)]


class ManifestDifference(TypedDict):
    """A path at which the manifests of two runs differ, and both JSON values; None where there is none."""

    path: str
    baseline: Any
    candidate: Any


def manifest_differences(baseline: Manifest, candidate: Manifest) -> dict[str, list[ManifestDifference]]:
    """Find the differences between the manifests of two runs over the same volumes.

    Parameters
    ----------
    baseline, candidate : Manifest

    Returns
    -------
    dict of str to list of ManifestDifference
        For each of ``workflow``, ``software``, ``inputs``, ``labels``, ``artefacts`` and ``settings`` (all else that
        decides a result) a list of differences.
    """
    sections: dict[str, list[Difference]] = {name: [] for name in (*dict.fromkeys(SECTIONS.values()), "settings")}
    same_blocks = [
        volume
        for volume, source in baseline["inputs"].items()
        if _blocks(source) == _blocks(candidate["inputs"][volume])
    ]
    a, b = (_comparable(manifest, same_blocks) for manifest in (baseline, candidate))
    for key in sorted(a.keys() | b.keys()):
        sections[SECTIONS.get(key, "settings")] += find_differences(a.get(key), b.get(key), key)
    return {
        name: [
            {"path": difference.path, "baseline": difference.before, "candidate": difference.now}
            for difference in differences
        ]
        for name, differences in sections.items()
    }


def _blocks(source: InputRecord) -> tuple[str, int]:
    return source["work"], source["block_vox"]


def _comparable(manifest: Manifest, same_blocks: Sequence[str]) -> dict[str, Any]:
    """Return a manifest without the entries of one execution, and with hashes by block only for the same blocks."""
    inputs = {
        volume: {
            key: value
            for key, value in source.items()
            if key in INPUT_KEYS or (key == VOXEL_HASH and volume in same_blocks)
        }
        for volume, source in manifest["inputs"].items()
    }
    workflow = {key: _by_name(value) for key, value in manifest["workflow"].items()}
    kept = {key: value for key, value in manifest.items() if key not in NOT_COMPARED}
    return {**kept, "inputs": inputs, "workflow": workflow}


def _by_name(steps: Any) -> Any:
    """Make a mapping of a list of steps, so that an added step does not make all later steps differ."""
    if not isinstance(steps, list):
        return steps
    named: dict[str, Any] = {}
    for step in steps:
        ((name, parameters),) = step.items()
        same = sum(key.split(" ")[0] == name for key in named)
        named[f"{name} {same + 1}" if same else name] = parameters
    return {"order": ", ".join(named), **named}
