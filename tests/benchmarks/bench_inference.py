"""Learned detection against bare windows and MONAI, its memory against the size of a volume, and a whole run.

By default on one core, in turn: windows through the backend alone, the stage (read, normalise, predict, blend, write)
over a phantom, and the backend alone again, in a process set up like a worker; then MONAI's
``sliding_window_inference`` on torch as it comes, in another process, over a crop, scaled to all windows. ``--memory``:
peak of a worker for three sizes, with a network that costs nearly nothing. ``--run``: ``nx47dask run --workflow
surface``, two workers, in all::

    python -m tests.benchmarks.bench_inference [--quick] [--rounds 3]
    python -m tests.benchmarks.bench_inference --memory [--quick]
    python -m tests.benchmarks.bench_inference --run

``--quick`` is small, to see that it works.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from nx47dask.cluster.settings import WORKER_ENVIRONMENT
from nx47dask.engine import Ledger, SerialPool, execute
from nx47dask.geometry import Box
from nx47dask.io import ArrayStore, discover
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.models import load_networks
from nx47dask.models.backends import predictor_for
from nx47dask.models.base import default_model_path
from nx47dask.phantom.render import Phantom, render
from nx47dask.planning.make import make_plan
from nx47dask.planning.plan import RunPlan
from nx47dask.stages.detect import detect
from nx47dask.workflow import load_workflow
from tests.benchmarks.bench_memory import SHAPES, make_volume, measure

EDGE, WINDOW, CROP = 320, 128, 192
QUICK = 4
"""Divides the edges above for a quick look."""
QUICK_SHAPES = ((256, 256, 256), (256, 256, 512))
DETECT_BLOCK = 256
DESCRIPTION = {"activation": "sigmoid", "normalisation": {"scheme": "zscore"}}


def make_phantom(folder: Path, edge: int) -> Path:
    path = folder / f"phantom-{edge}.zarr"
    if not path.exists():
        whole = Box.of_shape((edge,) * 3)
        voxels = render(Phantom(whole.shape, seed=3), whole)[0]
        store = ArrayStore(str(path), whole.shape, (64,) * 3, (64,) * 3, "uint8")
        store.create()
        store.write(whole, voxels)
    return path


def make_model(folder: Path, window: int) -> str:
    """The model of the package where it is there, else its network with random weights."""
    if default_model_path().exists():
        return "surface"
    from safetensors.torch import save_file

    from nx47dask.models.surface_unet import surface_unet

    path = folder / "random.safetensors"
    save_file(surface_unet().state_dict(), path)
    factory = "nx47dask.models.surface_unet:surface_unet"
    path.with_suffix(".yaml").write_text(
        yaml.safe_dump({**DESCRIPTION, "window_zyx": [window] * 3, "factory": factory})
    )
    return str(path)


def write_workflow(path: Path, detect_block: int, **learned: object) -> Path:
    source = {"learned": {"overlap": 0.5, "device": "cpu", "skip": False, **learned}}
    steps = [{"threshold": {"value": 0.5}}]
    path.write_text(yaml.safe_dump({"detect": [source], "postprocess": steps, "detect_block": detect_block}))
    return path


def planned(folder: Path, edge: int, window: int) -> RunPlan:
    """One block over the whole phantom, so that the stage runs every window once, as MONAI does."""
    model = make_model(folder, window)
    workflow = write_workflow(folder / "inference.yaml", edge, model=model, window_zyx=[window] * 3)
    return make_plan(discover([make_phantom(folder, edge)]), folder / "inference-run", load_workflow(workflow))


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run_stage(plan: RunPlan, scan: ScanStatistics) -> None:
    (job,) = plan.jobs
    shutil.rmtree(plan.out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as ledger:
        _, errors = execute({job.id: detect(job, plan.detector, scan)}, SerialPool(), Ledger(Path(ledger)))
    assert not errors, errors


def run_ours(plan: RunPlan) -> dict[str, object]:
    """Seconds of the stage, and of the backend for as many windows: half before it, half after it."""
    (job,), (detector,) = plan.jobs, plan.networks
    volume = Box.of_shape(job.volume.shape)
    image = job.volume.read(volume)
    scan = ScanStatistics.of_histogram(np.bincount(image.ravel(), minlength=256))
    windows = list(detector.lattice(volume).touching(volume))
    normalise, predictor = detector.info.normalisation.resolve(scan), predictor_for(detector.info, detector.runtime)
    batches = [normalise(image[window.slices])[None, None] for window in windows[:4]]
    detector.probability(image, volume, Box((0, 0, 0), (8, 8, 8)), volume, scan)  # compiles what there is to

    def bare(number: int) -> float:
        given = itertools.islice(itertools.cycle(batches), number)
        return seconds(lambda: [None for _ in predictor.run(given)])

    half = len(windows) // 2
    before, stage, after = bare(half), seconds(lambda: run_stage(plan, scan)), bare(len(windows) - half)
    return {"windows": len(windows), "bare": [before, after], "stage": stage, "engine": str(detector.runtime)}


def run_monai(plan: RunPlan, crop: int) -> dict[str, object]:
    """Seconds of MONAI for the windows of a crop."""
    import torch
    from monai.inferers import sliding_window_inference

    (job,), (detector,) = plan.jobs, plan.networks
    network, box = load_networks(detector.info)[0], Box.of_shape((crop,) * 3)
    voxels = job.volume.read(box).astype(np.float32)
    image = torch.from_numpy((voxels - voxels.mean()) / voxels.std())[None, None]
    window = detector.info.window_zyx

    def blended(given: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return sliding_window_inference(
                given, window, 1, lambda one: network(one).sigmoid(), overlap=0.5, mode="gaussian"
            )

    blended(image[..., : window[0], : window[1], : window[2]])
    return {"windows": len(detector.lattice(box)), "seconds": seconds(lambda: blended(image))}


def in_process(part: str, options: argparse.Namespace, environment: dict[str, str]) -> dict[str, object]:
    """What a part prints, run in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_inference", "--part", part, "--folder", options.folder]
    command += ["--quick"] * options.quick
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    return json.loads(output.stdout.splitlines()[-1])


def speed(options: argparse.Namespace) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    over_bare, over_monai = [], []
    for number in range(options.rounds):
        ours, monai = in_process("ours", options, WORKER_ENVIRONMENT), in_process("monai", options, {})
        bare, stage = sum(ours["bare"]), ours["stage"]
        scaled = monai["seconds"] * ours["windows"] / monai["windows"]
        over_bare.append(stage / bare)
        over_monai.append(stage / scaled)
        print(
            f"round {number + 1}: {ours['windows']} windows, {ours['engine']}: stage {stage:.2f} s, "
            f"bare {bare:.2f} s {[round(one, 2) for one in ours['bare']]}, "
            f"MONAI {scaled:.2f} s (scaled from {monai['windows']} windows in {monai['seconds']:.2f} s)",
            flush=True,
        )
    print(f"stage / bare windows  {statistics.median(over_bare):.3f}   (at most 1.10)")
    print(f"stage / MONAI         {statistics.median(over_monai):.3f}   (at most 0.35)")


def memory(options: argparse.Namespace) -> None:
    import torch

    model = options.folder / "free.pt"
    torch.jit.script(torch.nn.Conv3d(1, 1, 1).eval()).save(model)
    model.with_suffix(".yaml").write_text(yaml.safe_dump({**DESCRIPTION, "window_zyx": [WINDOW] * 3}))
    workflow = write_workflow(options.folder / "memory.yaml", DETECT_BLOCK, model=str(model))
    peaks = []
    for shape in QUICK_SHAPES if options.quick else SHAPES:
        volume = make_volume(options.folder, shape, as_tiff=False)
        row = measure(volume, options.folder / "memory-run", str(workflow), 128)
        print(shape, "  ".join(f"{key} {value:.0f}" for key, value in row.items()), "(MiB, s)", flush=True)
        peaks.append(row["worker"])
    print(f"worker: largest / smallest peak {max(peaks) / min(peaks):.3f}   (at most 1.15)")


def whole_run(options: argparse.Namespace) -> None:
    volume = make_volume(options.folder, (256,) * 3, as_tiff=True)
    command = [sys.executable, "-m", "nx47dask", "run", volume, "--out", options.folder / "whole-run", "--overwrite"]
    command += ["--workflow", "surface", "--workers", "2"]
    took = seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    print(f"surface, 256³, 2 workers, cluster start and report included: {took:.1f} s   (at most 60)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", dest="measured", action="store_const", const=memory, default=speed)
    parser.add_argument("--run", dest="measured", action="store_const", const=whole_run)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=("ours", "monai"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nx47dask-bench")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.part is None:
        options.measured(options)
        return
    edge, window, crop = (one // QUICK if options.quick else one for one in (EDGE, WINDOW, CROP))
    plan = planned(options.folder, edge, window)
    print(json.dumps(run_ours(plan) if options.part == "ours" else run_monai(plan, crop)))


if __name__ == "__main__":
    main()
