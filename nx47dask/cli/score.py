"""Commands that judge masks against labels: score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nx47dask.cli.main_job import Cluster, Workers
from nx47dask.cli.output import STANDARD_OUTPUT, write_json

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PRED", help="A mask, a folder of masks, or a run folder.", show_default=False)
    ],
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS", help="Labels of the same ids: 0 background, 1 surface, 2 left out.", show_default=False
        ),
    ],
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write all numbers as JSON; - is standard output.")
    ] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    serial: Annotated[bool, typer.Option("--serial", help="No cluster.")] = False,
) -> None:
    """Score masks with the competition's metric, exactly."""
    from nx47dask.stages.score import score_volumes

    scores = score_volumes(predictions, labels, cluster=cluster, workers=workers, serial=serial)
    write_json(scores, json_file)
    if json_file == STANDARD_OUTPUT:
        return
    from rich.console import Console

    Console(width=200).print(_table(scores))  # a narrow terminal wraps lines rather than lose digits
    mean = scores["mean"]
    typer.echo(f"{mean['clean_volumes']} of {mean['volumes']} volumes without a spurious feature")


def _table(scores: dict[str, Any]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        box=SIMPLE,
        show_footer=True,
        caption="tp, pred, gt: matched features, those of the mask, those of the labels, in octants",
    )
    terms = ("score", "topo", "surface_dice", "voi")
    table.add_column("volume", "mean")
    for name in terms:
        table.add_column(name.replace("_", " "), f"{scores['mean'][name]:.4f}", justify="right")
    for name in ("split", "merge", "components", "tunnels", "cavities", "recall", "holes", "bridges"):
        footer = f"{scores['mean']['recall_2']:.4f}" if name == "recall" else ""
        table.add_column(name, footer, justify="right")
    for volume, record in scores["volumes"].items():
        table.add_row(
            volume,
            *(f"{record[name]:.4f}" for name in terms),
            f"{record['voi_split']:.3f}",
            f"{record['voi_merge']:.3f}",
            *("/".join(map(str, counts)) for counts in record["counts"]),
            f"{record['agreement']['2']['recall']:.4f}",
            *(str(record["defects"][kind]["count"]) for kind in ("holes", "bridges")),
        )
    return table
