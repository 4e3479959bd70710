"""Algorithms against their golden results: where the bits change, the number in a plan's identity must be raised.

A run folder can be resumed by a later release as long as no algorithm of its plan got another number. So a change of
bits without a new number would mix two results in one mask. After a change that is meant, raise ``revision`` of the
algorithm and record its new result: ``python -m tests.unit.test_revisions``.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile

import nx47dask
from nx47dask.detectors import DETECTORS, Fusion, Learned, Residual, ResidualBand, Sheetness, quantise
from nx47dask.files.summaries import pack_arrays, unpack_arrays
from nx47dask.geometry import Box, WindowLattice
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.kernels.windows import blend_windows
from nx47dask.metrics.score import official_score
from nx47dask.planning.plan import STAGE_REVISIONS
from nx47dask.stages.export import REVISION as EXPORT
from nx47dask.stages.ingest import REVISION as INGEST
from nx47dask.stages.measure import REVISION as MEASURE
from nx47dask.stages.score import REVISION as SCORE
from nx47dask.steps import STEPS
from nx47dask.steps.passes import NamedStep, compile_passes
from nx47dask.steps.whole import whole_mask
from nx47dask.workflow import preset_names
from tests.conftest import sheets

GOLDEN = Path(__file__).with_name("revisions.json")
SHAPE = (14, 26, 24)
BOX = Box.of_shape(SHAPE)


def scan():
    """A small scan, its statistics, and a probability like that of a detector."""
    image = sheets(SHAPE, seed=3)
    statistics = ScanStatistics.of_histogram(np.bincount(image.ravel(), minlength=256))
    noise = np.random.default_rng(5).normal(0, 30, SHAPE)
    return image, statistics, np.clip(image + noise, 0, 255).astype(np.uint8)


def of_step(kind):
    """The mask of a step alone, or of a threshold with the step before or behind it."""
    image, _, probability = scan()
    step, threshold = kind(), NamedStep("threshold", STEPS["threshold"]())
    steps = [NamedStep("step", step)]
    if step.takes == "mask":
        steps = [threshold, *steps]
    elif step.gives == "probability":
        steps = [*steps, threshold]
    return whole_mask(compile_passes(steps), probability, image)


def of_detector(detector):
    """The stored probability of a detector over a whole scan."""
    image, statistics, _ = scan()
    return quantise(detector.probability(image, BOX, BOX, BOX, statistics))


def of_residual_band():
    image, statistics, _ = scan()
    detector = ResidualBand()
    return detector.band(image, statistics, detector.slice_thresholds(image, 0, SHAPE[0], statistics))


def of_learned():
    """A network of one line over windows, mirrored and blended."""
    image, _, _ = scan()
    blended = blend_windows(
        image,
        BOX,
        BOX,
        WindowLattice(SHAPE, (8, 8, 8), (4, 4, 4)),
        lambda batches: (batch[:, 0, ::-1] / 255 for batch in batches),
        normalise=lambda voxels: voxels.astype(np.float32),
        mirrors=((), (0,)),
    )
    return quantise(blended)


def of_score():
    image, _, probability = scan()
    found = official_score(probability > 128, (image > 128).astype(np.uint8))
    return np.array([found[term] for term in ("score", "topo", "surface_dice", "voi")])


def of_statistics():
    _, statistics, _ = scan()
    return np.array([statistics.mean, statistics.std, *statistics.permille])


def of_run(artefact):
    """What a whole run makes of a scan: the pages of its mask, or the text of its metrics."""
    with TemporaryDirectory() as folder:
        tifffile.imwrite(Path(folder) / "scan.tif", scan()[0], photometric="minisblack")
        run = nx47dask.run([Path(folder) / "scan.tif"], Path(folder) / "run", workflow="v61.1", serial=True, block=16)
        if artefact == "mask":
            return tifffile.imread(run.path / "masks" / "scan.tif")
        text = json.dumps(run.volume_metrics["scan"]["mask"]) + (run.path / "metrics" / "slices.csv").read_text()
        return np.frombuffer(text.encode(), np.uint8)


CASES = {
    **{name: (kind.revision, lambda kind=kind: of_step(kind)) for name, kind in STEPS.items()},
    "learned": (Learned.revision, of_learned),
    "residual": (Residual.revision, lambda: of_detector(Residual())),
    "residual_band": (ResidualBand.revision, of_residual_band),
    "sheetness": (Sheetness.revision, lambda: of_detector(Sheetness(scales=(1, 1, 2)))),
    "fusion": (Fusion.revision, lambda: of_detector(Fusion(((0.3, Residual()), (0.7, Sheetness())), "logit"))),
    "ingest": (INGEST, of_statistics),
    "measure": (MEASURE, lambda: of_run("metrics")),
    "export": (EXPORT, lambda: of_run("mask")),
    "score": (SCORE, of_score),
}
FLOAT_KERNELS = {"residual", "sheetness", "fusion"}
"""Sources whose kernels sum in float32: another processor may round a level up where this one rounds down."""


def golden():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def same(name, result, expected):
    """Equal bits; of float kernels, levels that differ by one in one voxel of a hundred; logarithms as precise."""
    if result.dtype == np.float64:
        return np.allclose(result, expected, rtol=1e-9, atol=0)
    if result.shape != expected.shape or name not in FLOAT_KERNELS:
        return np.array_equal(result, expected)
    off = np.abs(result.astype(np.int64) - expected)
    return off.max() <= 1 and np.count_nonzero(off) <= off.size / 100


@pytest.mark.parametrize("name", CASES)
def test_bits_change_only_with_the_revision(name):
    revision, compute = CASES[name]
    assert golden()[name]["revision"] == revision, "record its result: python -m tests.unit.test_revisions"
    expected = unpack_arrays(golden()[name]["result"])["result"]
    assert same(name, compute(), expected), f"{name} gives other bits: raise its revision, then record the result"


def test_every_algorithm_has_a_golden_result():
    assert set(golden()) == set(CASES) >= {*STEPS, *DETECTORS, *STAGE_REVISIONS}


def test_a_golden_result_tells_one_algorithm_from_another():
    results = [unpack_arrays(entry["result"])["result"] for name, entry in golden().items() if name in DETECTORS]
    assert all(result.any() for result in results)
    assert len({result.tobytes() for result in results}) == len(results)


@pytest.mark.parametrize("workflow", preset_names())
def test_the_identity_of_a_plan_holds_revisions_and_no_release(make_tiff, tmp_path, workflow, monkeypatch):
    monkeypatch.setattr("nx47dask.version.__version__", "99.0")
    planned = nx47dask.plan([make_tiff()], tmp_path / "run", workflow=workflow)
    named = [
        next(iter(item)).partition("#")[0]
        for key in ("detect", "postprocess")
        for item in planned.workflow.resolved[key]
    ]
    assert set(planned.identity["revisions"]) >= {*named, *STAGE_REVISIONS}
    assert "99.0" not in json.dumps(planned.identity)
    assert nx47dask.version.__version__ == "99.0"


def record() -> None:
    """Write the results of algorithms that are new or have another revision; those of the others must be the same."""
    known = golden() if GOLDEN.is_file() else {}
    for name, (revision, compute) in CASES.items():
        if known.get(name, {}).get("revision") != revision:
            known[name] = {"revision": revision, "result": pack_arrays({"result": compute()})}
    GOLDEN.write_text(json.dumps({name: known[name] for name in CASES}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
