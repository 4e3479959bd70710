"""Commands for trained networks: models list, models check."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from nx47dask.models.base import ModelInfo
    from nx47dask.models.check import Trial

__all__ = ["commands"]

commands = typer.Typer(name="models", help="Trained networks: what there is, and whether one works here.")

_MEBIBYTE = 1 << 20


class Device(StrEnum):
    """Choices of ``--device``, as in `nx47dask.models.backends.runtime.Device`."""

    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Choices of ``--precision``, as in `nx47dask.models.backends.runtime.Precision`."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@commands.command("list")
def list_models() -> None:
    """List the model that comes with the package, what other files can be models, and what runs them here."""
    from nx47dask.models import describe_model
    from nx47dask.models.backends import runtimes_here
    from nx47dask.models.base import DEFAULT_MODEL, sources

    info = describe_model(DEFAULT_MODEL)
    _print_rows([(DEFAULT_MODEL, f"comes with the package, sha256 {info.sha256[:12]}; {_input(info)}")])
    typer.echo(f"or a PATH: {sources()}; beside a file NAME.yaml, which describes it")
    typer.echo("\nwhat runs networks here:")
    for runtime in runtimes_here(info):
        versions = ", ".join(f"{package} {number}" for package, number in runtime.versions)
        typer.echo(f"  {runtime.device}  {runtime.backend}  {runtime.precision}  ({versions})")


@commands.command()
def check(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A model file, an nnU-Net folder, or surface.", show_default=False)
    ],
    trust: Annotated[
        bool, typer.Option("--trust", help="Load pickles and code that the model names; they can run anything.")
    ] = False,
    device: Annotated[Device | None, typer.Option("--device", help="Only this one.")] = None,
    precision: Annotated[Precision | None, typer.Option("--precision", help="Only this one.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Run one window of a model on each device and precision of this machine, with one thread of a CPU."""
    from nx47dask.engine.worker import peak_rss_bytes
    from nx47dask.models import describe_model
    from nx47dask.models.check import check_model

    info = describe_model(path, trust=trust)
    quiet = json_file == STANDARD_OUTPUT
    if not quiet:
        _print_rows(_description(info))
    only: dict[str, Any] = {"device": device and device.value, "precision": precision and precision.value}
    trials = check_model(info, peak_bytes=peak_rss_bytes, trust=trust, **only)
    write_json({"model": info.to_json(), "engines": [trial.to_json() for trial in trials]}, json_file)
    if not quiet:
        from rich.console import Console

        Console(width=120).print(_table([trial for trial in trials if trial.failure is None]))
        for failure in dict.fromkeys(trial.failure for trial in trials if trial.failure is not None):
            typer.echo(f"not run: {failure}")


def _description(info: ModelInfo) -> list[tuple[str, str]]:
    norm = info.normalisation
    classes = "1 class" if info.classes == 1 else f"{info.classes} classes, surface is {info.surface}"
    averaged = {"logit": "log-odds", "probability": "probabilities"}[info.values]
    return [
        ("model", f"{info.path}"),
        ("format", info.format),
        ("sha256", info.sha256),
        ("input", _input(info)),
        ("normalisation", f"{norm.scheme} of the {norm.scope}{', voxels above 0 only' if norm.nonzero else ''}"),
        ("output", f"{classes}, activation {info.activation}"),
        ("members", f"{info.members}, averaged as {averaged}"),
        ("mirrors", " ".join("zyx"[axis] for axis in info.mirrors) or "none in training"),
        *(("note", note) for note in info.notes),
    ]


def _input(info: ModelInfo) -> str:
    window, step = ("x".join(map(str, edges)) for edges in (info.window_zyx, info.step_zyx))
    return f"windows of {window} voxels (z, y, x), step {step}"


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    for name, value in rows:
        typer.echo(f"{name:<14}{value}")


def _table(trials: Sequence[Trial]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        box=SIMPLE,
        pad_edge=False,
        collapse_padding=True,
        caption="s to open: loading and the first window; difference: the largest, from the first row; one CPU thread",
    )
    for name in ("device", "backend", "precision"):
        table.add_column(name)
    for name in ("s a window", "s to open", "memory MiB", "device MiB", "answer", "difference"):
        table.add_column(name, justify="right")
    table.add_column("")
    for trial in trials:
        runtime = trial.runtime
        remark = "" if trial.repeatable else "not the same bits each time"
        table.add_row(runtime.device, runtime.backend, runtime.precision, *_cells(trial), remark)
    return table


def _cells(trial: Trial) -> list[str]:
    return [
        f"{trial.window_s:.3f}",
        f"{trial.open_s:.2f}",
        f"{trial.peak_bytes / _MEBIBYTE:,.0f}",
        "" if trial.device_peak_bytes is None else f"{trial.device_peak_bytes / _MEBIBYTE:,.0f}",
        f"{trial.least:.3g}..{trial.most:.3g}",
        f"{trial.largest_difference:.1e}",
    ]
