"""Train the default model, or a similar model on your own labels.

Train on synthetic scrolls first, then on labelled volumes. Both can be resumed: repeat the same command.

    python -m training.train_default_model base.pt --phantoms 24 --steps 5000 --edge 64
    python -m training.train_default_model surface.pt --start base.pt --data DIR --phantoms 12 --steps 1500

DIR has the competition's layout: train_images/<id>.tif, train_labels/<id>.tif (0 background, 1 surface, 2 ignore).
The results are <name>.safetensors and <name>.yaml beside the checkpoint, for
--set detect.learned.model=<name>.safetensors. Volumes given by --leave-out are scored with the new model in the
workflow "surface".
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file, save_file

import nx47dask
from nx47dask.models.base import DEFAULT_MODEL, default_model_path
from nx47dask.models.surface_unet import surface_unet
from training.loop import Schedule, train
from training.volumes import phantom_volumes, read_volumes

PHANTOM_SEED = 1000
REPORT_EVERY = 50


def main(
    checkpoint: Path,
    data: Annotated[Path | None, typer.Option(help="Labelled volumes in the competition's layout.")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="Id to hold out; repeatable.")] = None,
    phantoms: Annotated[int, typer.Option(min=0, help="Number of synthetic scrolls.")] = 0,
    phantom_edge: Annotated[int, typer.Option(min=32, help="Their edge in voxels.")] = 160,
    phantom_share: Annotated[float, typer.Option(min=0, max=1, help="Share of patches from them.")] = 0.25,
    start: Annotated[
        Path | None, typer.Option(help="Where weights come from: a checkpoint, a .safetensors file, or surface.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1)] = 2000,
    edge: Annotated[int, typer.Option(min=16, help="Edge of a patch, a multiple of 16.")] = 96,
    batch: Annotated[int, typer.Option(min=1, help="Patches of a part of a step.")] = 2,
    parts: Annotated[int, typer.Option(min=1, help="Parts of a step: threads with a batch each.")] = 1,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Train the default model and store its state in CHECKPOINT."""
    torch.set_num_threads(1)  # on a CPU, parts in parallel beat threads inside an operation
    torch.manual_seed(seed)
    labelled = read_volumes(data, leave_out or []) if data else []
    synthetic = phantom_volumes(phantoms, (phantom_edge,) * 3, PHANTOM_SEED + 100_000 * seed)
    share = phantom_share if labelled else 1.0
    weights = [(1 - share) / max(1, len(labelled))] * len(labelled) + [share / max(1, phantoms)] * phantoms
    network = surface_unet()
    if start:
        network.load_state_dict(_weights(start))
    losses: list[float] = []
    began = time.perf_counter()

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        if (step + 1) % REPORT_EVERY == 0:
            recent = sum(losses[-REPORT_EVERY:]) / REPORT_EVERY
            typer.echo(f"step {step + 1} loss {recent:.4f} {(time.perf_counter() - began) / len(losses):.3f} s a step")

    trained = train(
        network,
        [*labelled, *synthetic],
        weights,
        Schedule(steps, edge, batch, parts, learning_rate, seed),
        checkpoint,
        device=device,
        report=report,
    )
    model = checkpoint.with_suffix(".safetensors")
    save_file({name: values.contiguous() for name, values in trained.cpu().state_dict().items()}, model)
    shutil.copy(default_model_path().with_suffix(".yaml"), model.with_suffix(".yaml"))
    if data and leave_out:
        _score(model, data, leave_out)


def _weights(start: Path) -> dict[str, torch.Tensor]:
    if start.suffix == ".pt":
        averaged: dict[str, torch.Tensor] = torch.load(start, weights_only=True)["average"]
        return averaged
    return load_file(default_model_path() if str(start) == DEFAULT_MODEL else start)


def _score(model: Path, data: Path, ids: list[str]) -> None:
    """Score held-out volumes in the workflow that the model is made for."""
    run = nx47dask.run(
        [data / "train_images" / f"{name}.tif" for name in ids],
        model.with_suffix(""),
        workflow="surface",
        overrides=[f"detect.learned.model={model}"],
        labels=data / "train_labels",
        serial=True,
        overwrite=True,
    )
    for name, score in run.scores.items():
        terms = ", ".join(f"{term} {score[term]:.3f}" for term in ("score", "topo", "surface_dice", "voi"))
        typer.echo(f"held out {name}: {terms}")


if __name__ == "__main__":
    typer.run(main)
