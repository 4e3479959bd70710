"""Small finished runs to compare, made in a second or two, and scores for them made by hand."""

from __future__ import annotations

import json

import tifffile

import nx47dask
from tests.conftest import sheets

VOLUMES = ("910000001", "910000002")
SHAPE = (12, 40, 36)


def tiny_run(folder, name, *overrides, volumes=VOLUMES, shape=SHAPE, bbox=None):
    """A run ``folder/name`` of the workflow fast over small sheet scans, one per id, in this process."""
    inputs = [folder / "in" / str(shape[0]) / f"{volume}.tif" for volume in volumes]
    for seed, path in enumerate(inputs):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, sheets(shape, seed), compression="lzw", photometric="minisblack")
    small = ("postprocess.small_objects.min_vox=20", *overrides)
    return nx47dask.run(inputs, folder / name, workflow="fast", overrides=small, bbox=bbox, serial=True)


def score_record(score, *, recall=0.9, holes=0, bridges=0):
    """What ``volumes.json`` says of the score of one volume."""
    agreement = {"precision": 0.8, "recall": recall, "dice": 2 * 0.8 * recall / (0.8 + recall)}
    return {
        "score": score,
        "topo": score,
        "surface_dice": score,
        "voi": score,
        "voi_split": 0.5,
        "voi_merge": 0.5,
        "counts": [[2, 2, 3], [3, 3, 4], [0, 0, 0]],
        "agreement": {"0": agreement, "2": agreement},
        "defects": {"holes": {"count": holes, "places": []}, "bridges": {"count": bridges, "places": []}},
    }


def add_scores(folder, scores, fingerprint="same"):
    """Write scores into a run folder as a run with labels does; all labels get one fingerprint."""
    metrics, manifest = (folder / "metrics" / "volumes.json", folder / "manifest.json")
    volumes, run = json.loads(metrics.read_text()), json.loads(manifest.read_text())
    for volume, score in scores.items():
        volumes["volumes"][volume]["score"] = score
    run["labels"] = {
        volume: {"path": f"/labels/{volume}.tif", "kind": "tiff", "fingerprint": fingerprint} for volume in scores
    }
    metrics.write_text(json.dumps(volumes))
    manifest.write_text(json.dumps(run))
