"""The learned source: settings over what a model says of itself, and the blocks that a plan gives it."""

from __future__ import annotations

import pickle
import shutil

import pytest
import yaml
import zarr

import nx47dask
from nx47dask.detectors import Detector, Fusion, Learned, Sheetness
from nx47dask.errors import ModelError
from nx47dask.geometry import Box
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.planning.projection import project
from nx47dask.planning.text import plan_lines
from nx47dask.stages.detect import DETECT_BYTES_PER_VOXEL, NETWORK_BYTES_PER_VOXEL, TORCH_NETWORK_BYTES
from tests.integration.tiny_model import learned, write_model

SCAN = ScanStatistics(0, 255, 100.0, 40.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m.pt", window_zyx=[20, 32, 32], step_zyx=[5, 8, 8])


def bound(model, **settings):
    return Learned(str(model), backend="torch", **settings).bind()


@pytest.mark.parametrize(
    ("settings", "window", "step"),
    [
        ({}, (20, 32, 32), (5, 8, 8)),
        ({"overlap": 0.25}, (20, 32, 32), (15, 24, 24)),
        ({"overlap": 0.95}, (20, 32, 32), (1, 1, 1)),
        ({"step_zyx": (20, 1, 2)}, (20, 32, 32), (20, 1, 2)),
        ({"window_zyx": (16, 16, 7)}, (16, 16, 7), (8, 8, 3)),
        ({"window_zyx": (16, 16, 7), "overlap": 0}, (16, 16, 7), (16, 16, 7)),
    ],
)
def test_windows_are_the_models_unless_said_otherwise(model, settings, window, step):
    lattice = bound(model, **settings).lattice(Box.of_shape((50, 50, 50)))
    assert (lattice.window, lattice.step, lattice.placement) == (window, step, "flush")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_zyx": (4, 4, 33)}, "step of 33 voxels along x leaves gaps between windows of 32"),
        ({"window_zyx": (8, 8, 12), "rotations": True}, "8 x 12 voxels, not square"),
        ({"precision": "float16", "device": "cpu"}, "nothing runs it with device cpu"),
    ],
)
def test_settings_that_do_not_fit_the_model(model, settings, message):
    with pytest.raises(ModelError, match=message):
        bound(model, **settings)


def test_logits_of_a_model_that_gives_probabilities(tmp_path):
    with pytest.raises(ModelError, match="its output is a probability"):
        bound(write_model(tmp_path / "p.pt", activation="none"), values="logit")


def test_mirrors_are_combinations_of_axes(model):
    detector = bound(model, mirrors=("x", "z"))
    assert detector.mirrors == ((0,), (2,), (0, 2))
    assert detector.variants == 4
    assert bound(model, mirrors=("y", "x"), rotations=True).variants == 8, "half a turn is both mirrors"
    assert "each in 8 variants" in str(bound(model, mirrors=("y", "x"), rotations=True))


def test_a_record_names_weights_by_their_hash_and_not_by_their_place(model, tmp_path):
    for name in ("m.pt", "m.yaml"):
        shutil.copy(model.with_name(name), tmp_path / name)
    here, there = bound(model).record(), bound(tmp_path / "m.pt").record()
    assert here == there
    assert {"sha256", "format", "window_zyx", "step_zyx", "placement", "blend", "values", "mirrors", "rotations"} < (
        here.keys()
    )
    assert {"device", "backend", "precision", "batch", "threads", "versions"} < here["engine"].keys()
    assert bound(model, support_level=3).record() != here
    assert bound(model, skip=False).record() == here


def test_it_is_a_small_detector(model):
    detector = bound(model)
    assert isinstance(detector, Detector)
    assert pickle.loads(pickle.dumps(detector)) == detector
    assert len(pickle.dumps(detector)) < 5000


@pytest.mark.parametrize(
    "box", [Box((0, 0, 0), (50, 61, 47)), Box((17, 30, 3), (18, 31, 4)), Box((0, 40, 9), (9, 61, 20))]
)
def test_what_is_read_lies_within_the_radius(model, box):
    detector, volume = bound(model), Box.of_shape((50, 61, 47))
    read = detector.context(box, volume, SCAN)
    assert read.clip(box.expand(detector.radius_zyx(SCAN)).clip(volume)) == read
    assert read.clip(box) == box
    both = Fusion(((1.0, detector), (1.0, Sheetness()))).context(box, volume, SCAN)
    assert both == Box(
        tuple(map(min, read.start, Sheetness().context(box, volume, SCAN).start)),
        tuple(map(max, read.stop, Sheetness().context(box, volume, SCAN).stop)),
    )


@pytest.fixture(scope="module")
def planned(model, tmp_path_factory):
    """Plan volumes of some shapes, of which nothing but metadata is there."""
    folder = tmp_path_factory.mktemp("plan")

    def plan(*shapes, sources=None, block=None, **settings):
        for shape in shapes:
            path = folder / ("x".join(map(str, shape)) + ".zarr")
            if not path.exists():
                zarr.create_array(path, shape=shape, chunks=(128, 128, 128), dtype="uint8")
        workflow = folder / "workflow.yaml"
        detect = sources or [learned(model)]
        workflow.write_text(yaml.safe_dump({"detect": detect, "postprocess": ["threshold"], **settings}))
        inputs = [folder / ("x".join(map(str, shape)) + ".zarr") for shape in shapes]
        return nx47dask.plan(inputs, folder / "run", workflow=workflow, block=block)

    return plan


def test_blocks_of_inference_are_whole_work_blocks_as_large_as_memory_allows(planned):
    for shape in ((320, 320, 320), (512, 512, 512), (1024, 1024, 512)):
        plan = planned(shape, (64, 64, 64))
        job = plan.jobs[0]
        assert all(edge % job.block == 0 for edge in job.detect_grid.block_shape)
        assert project(plan).worker_bytes < 2 << 30
    assert plan.jobs[0].detect_blocks == (1, 1, 2)
    assert planned((320, 320, 320), (64, 64, 64)).jobs[0].detect_blocks == (2, 2, 2)
    volume = project(plan).volumes[plan.jobs[0].id]
    assert volume.windows == 202 * 125 * 61
    assert volume.windows_run > volume.windows


def test_a_volume_that_is_alone_is_shared_by_two_workers_where_both_gain(planned):
    assert len(planned((320, 320, 320)).jobs[0].detect_grid) == 2
    assert planned((40, 320, 200), block=40).jobs[0].detect_grid.block_shape == (40, 160, 200)
    assert len(planned((20, 32, 36), block=8).jobs[0].detect_grid) == 1, "either half would need all of its 2 windows"


@pytest.mark.parametrize(("edge", "expected"), [(320, (2, 2, 2)), (319, (1, 1, 1)), (5000, (2, 2, 2)), (1, (1, 1, 1))])
def test_the_blocks_can_be_set(planned, edge, expected):
    assert planned((320, 320, 320), detect_block=edge).jobs[0].detect_blocks == expected


def test_other_detectors_keep_the_work_block(planned):
    for source in ("sheetness", "residual", "residual_band"):
        plan = planned((320, 320, 320), sources=[source])
        assert plan.jobs[0].detect_grid.block_shape == (160, 160, 160)
        assert plan.identity["models"] == []
        assert not any(line.startswith(("model", "windows")) for line in plan_lines(plan, project(plan)))


def test_memory_counts_the_network_and_the_detectors_beside_it(planned, model):
    def peak(*sources):
        return project(planned((320, 320, 320), sources=list(sources), detect_block=160)).worker_bytes

    batches = [peak(learned(model, batch=batch)) for batch in (8, 64)]
    assert batches[1] - batches[0] == 64 * 20 * 32 * 32 * NETWORK_BYTES_PER_VOXEL - TORCH_NETWORK_BYTES
    assert peak(learned(model, batch=8), "sheetness") - batches[0] > 160**3 * DETECT_BYTES_PER_VOXEL
