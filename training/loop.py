"""The training loop: deterministic by step, resumable, on a CPU or a GPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nx47dask.errors import InputError
from nx47dask.files.atomic import replace_file
from training.augment import draw_batch
from training.losses import surface_loss
from training.volumes import TrainingVolume

__all__ = ["Schedule", "train"]

EMA = 0.995
WARM_UP_STEPS = 100
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Schedule:
    """Length of the training and size of its steps.

    Parameters
    ----------
    steps : int
        Number of steps.
    edge_vox : int
        Edge of a patch in voxels.
    batch : int
        Number of patches of a part.
    parts : int
        Number of parts of a step, each with its own batch and thread; their gradients are averaged.
    learning_rate : float
        Highest learning rate, reached after the warm-up; it falls to 0 along a cosine.
    seed : int
    """

    steps: int
    edge_vox: int = 96
    batch: int = 2
    parts: int = 1
    learning_rate: float = 2e-3
    seed: int = 0


def train(
    network: nn.Module,
    volumes: Sequence[TrainingVolume],
    weights: Sequence[float],
    schedule: Schedule,
    checkpoint: Path,
    *,
    device: str = "cpu",
    save_every: int = 200,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> nn.Module:
    """Train a network, from the checkpoint if there is one; return the averaged network.

    Parameters
    ----------
    network : Module
        Maps (B, 1, Z, Y, X) to logits of the same shape; training starts from its weights.
    volumes, weights : sequences
        Volumes to draw patches from, and the probability weight of each.
    schedule : Schedule
    checkpoint : Path
        File for the state of the training, written every ``save_every`` steps.
    device : str
        "cpu" or "cuda".
    report : callable
        Called after each step with its number and its loss.

    Raises
    ------
    InputError
        The checkpoint belongs to another schedule.
    """
    network = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=1e-2)
    average = copy.deepcopy(network)
    first = _restore(checkpoint, schedule, network, average, optimiser)
    replicas = [network.train(), *(copy.deepcopy(network) for _ in range(schedule.parts - 1))]

    def part(step: int, number: int) -> float:
        """Compute the loss of a part of a step; the gradients stay with the replica."""
        draw = np.random.default_rng([schedule.seed, step, number])
        image, target = draw_batch(volumes, weights, schedule.edge_vox, schedule.batch, draw)
        replicas[number].zero_grad(set_to_none=True)
        loss = surface_loss(replicas[number](image.to(device)), target.to(device))
        torch.autograd.backward(loss)
        return float(loss.detach())

    with ThreadPoolExecutor(schedule.parts) as pool:
        for step in range(first, schedule.steps):
            _share_weights(replicas)
            losses = list(pool.map(part, [step] * schedule.parts, range(schedule.parts)))
            _average_gradients(replicas)
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * _rate(step, schedule.steps)
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
            optimiser.step()
            _follow(average, network, min(EMA, (1 + step) / (10 + step)))
            report(step, sum(losses) / len(losses))
            if (step + 1) % save_every == 0 or step + 1 == schedule.steps:
                _save(checkpoint, schedule, step + 1, network, average, optimiser)
    return average.eval()


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _share_weights(replicas: Sequence[nn.Module]) -> None:
    for replica in replicas[1:]:
        for mine, first in zip(replica.parameters(), replicas[0].parameters(), strict=True):
            mine.copy_(first)


@torch.no_grad()
def _average_gradients(replicas: Sequence[nn.Module]) -> None:
    """Average the gradients into the first replica, summed in order."""
    for first, *others in zip(*(replica.parameters() for replica in replicas), strict=True):
        assert first.grad is not None
        for other in others:
            assert other.grad is not None
            first.grad += other.grad
        first.grad /= len(replicas)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def _save(
    path: Path, schedule: Schedule, step: int, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    state: dict[str, Any] = {
        "schedule": asdict(schedule),
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with replace_file(path) as temporary:
        torch.save(state, temporary)


def _restore(
    path: Path, schedule: Schedule, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """Load the checkpoint if there is one; return the step to continue from."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["schedule"] != asdict(schedule):
        raise InputError(f"{path}: belongs to {state['schedule']}, not {asdict(schedule)}; move it away or train it on")
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
