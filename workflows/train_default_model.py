"""Train the default model, or one like it on your own labels.

First on synthetic scrolls alone, then on labelled volumes; both are resumable: the same command goes on.

    python workflows/train_default_model.py base.pt --phantoms 24 --steps 5000 --edge 64
    python workflows/train_default_model.py surface.pt --start base.pt --data DIR --phantoms 12 --steps 1500

DIR is in the competition's layout: train_images/<id>.tif, train_labels/<id>.tif (0 background, 1 surface, 2 ignore).
The weights are written beside the checkpoint as <name>.safetensors.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from nx47dask.models.surface_unet import surface_unet
from nx47dask.training.loop import Schedule, train
from nx47dask.training.volumes import phantom_volumes, read_volumes

PHANTOM_SEED = 1000
REPORT_EVERY = 50


def main(
    checkpoint: Path,
    data: Annotated[Path | None, typer.Option(help="Labelled volumes in the competition's layout.")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="Id to hold out; repeatable.")] = None,
    phantoms: Annotated[int, typer.Option(min=0, help="Number of synthetic scrolls.")] = 0,
    phantom_edge: Annotated[int, typer.Option(min=32, help="Their edge in voxels.")] = 160,
    phantom_share: Annotated[float, typer.Option(min=0, max=1, help="Share of patches from them.")] = 0.25,
    start: Annotated[Path | None, typer.Option(help="Checkpoint whose averaged weights training starts from.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 2000,
    edge: Annotated[int, typer.Option(min=16, help="Edge of a patch, a multiple of 16.")] = 96,
    batch: Annotated[int, typer.Option(min=1, help="Patches of a part of a step.")] = 2,
    parts: Annotated[int, typer.Option(min=1, help="Parts of a step: threads with a batch each.")] = 1,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Train to CHECKPOINT."""
    torch.set_num_threads(1)  # on a CPU, parts in parallel beat threads inside an operation
    torch.manual_seed(seed)
    labelled = read_volumes(data, leave_out or []) if data else []
    synthetic = phantom_volumes(phantoms, (phantom_edge,) * 3, PHANTOM_SEED + 100_000 * seed)
    share = phantom_share if labelled else 1.0
    weights = [(1 - share) / max(1, len(labelled))] * len(labelled) + [share / max(1, phantoms)] * phantoms
    network = surface_unet()
    if start:
        network.load_state_dict(torch.load(start, weights_only=True)["average"])
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
    save_file(
        {k: v.contiguous() for k, v in trained.cpu().state_dict().items()}, checkpoint.with_suffix(".safetensors")
    )


if __name__ == "__main__":
    typer.run(main)
