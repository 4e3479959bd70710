"""Commands that compare masks with labels: score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nx47dask.cli.main_job import Cluster, Serial, Workers
from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from nx47dask.commands.score import VolumeScores

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def score(
    predictions: Annotated[
        str, typer.Argument(metavar="PRED", help="A mask, a folder of masks, or a run folder.", show_default=False)
    ],
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS", help="Labels of the same ids: 0 background, 1 surface, 2 left out.", show_default=False
        ),
    ],
    json_file: JsonFile = None,
    cluster: Cluster = None,
    workers: Workers = None,
    serial: Serial = False,
) -> None:
    """Score masks with the competition's metric, exactly."""
    from nx47dask.commands.score import score as score_all

    scores = score_all(predictions, labels, cluster=cluster, workers=workers, serial=serial)
    write_json(scores, json_file)
    if json_file == STANDARD_OUTPUT:
        return
    from rich.console import Console

    Console(width=200).print(_table(scores))  # a narrow terminal wraps lines rather than lose digits
    mean = scores["mean"]
    typer.echo(f"{mean['clean_volumes']} of {mean['volumes']} volumes without a spurious feature")


def _table(scores: VolumeScores) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    from nx47dask.metrics.score import DEFECT_KINDS
    from nx47dask.metrics.terms import SCORES

    table = Table(
        box=SIMPLE,
        show_footer=True,
        pad_edge=False,
        collapse_padding=True,
        caption="components, tunnels, cavities: matched / of the mask / of the labels; recall 2: within 2 voxels",
    )
    table.add_column("volume", "mean")
    for term in SCORES:
        table.add_column(term.replace("_", " "), f"{scores['mean'][term]:.4f}", justify="right")
    agreement = ("precision", "recall", "recall_2")
    for name in ("split", "merge", "components", "tunnels", "cavities", *agreement, "holes", "bridges"):
        footer = f"{scores['mean'][name]:.4f}" if name in agreement else ""
        table.add_column(name.replace("_", " "), footer, justify="right")
    for volume, record in scores["volumes"].items():
        table.add_row(
            volume,
            *(f"{record[term]:.4f}" for term in SCORES),
            f"{record['voi_split']:.3f}",
            f"{record['voi_merge']:.3f}",
            *("/".join(map(str, counts)) for counts in record["counts"]),
            f"{record['agreement']['0']['precision']:.4f}",
            *(f"{record['agreement'][tolerance]['recall']:.4f}" for tolerance in ("0", "2")),
            *(str(record["defects"][kind]["count"]) for kind in DEFECT_KINDS),
        )
    return table
