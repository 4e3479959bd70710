"""The command compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nx47dask.cli.baselines import Baselines
from nx47dask.cli.main_job import Cluster, Workers
from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The baseline: a run folder, or a frozen one.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The candidate, likewise, over the same volumes.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="DIR", help="Labels to score both with, where that is not done.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option("--gate", metavar="GATES", help="Limits on mean differences, such as 'score>=0,recall>=-0.01'."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to write. Default: compare-RUN_A-RUN_B here.")
    ] = None,
    json_file: JsonFile = None,
    cluster: Cluster = None,
    workers: Workers = None,
    serial: Annotated[bool, typer.Option("--serial", help="No cluster.")] = False,
    baselines: Baselines = Path("baselines"),
) -> None:
    """Compare two runs of the same volumes: masks, measures, scores, settings; exit code 4 when a gate fails."""
    from nx47dask.commands.compare import compare_runs, have_scores
    from nx47dask.report.compare import refuse_other_files, write_comparison
    from nx47dask.report.compare_tables import summary
    from nx47dask.report.documents import GatedComparison
    from nx47dask.runs.baselines import find_run
    from nx47dask.runs.gates import check_gates, parse_gates, require_passed

    a, b = find_run(run_a, baselines), find_run(run_b, baselines)
    out = out or Path(f"compare-{a.name}-{b.name}")
    refuse_other_files(out)
    gates = [] if gate is None else parse_gates(gate, scored=have_scores(a, b, labels))
    found = compare_runs(a, b, labels=labels, cluster=cluster, workers=workers, serial=serial)
    results = check_gates(gates, found["means"]["baseline"], found["means"]["candidate"])
    comparison: GatedComparison = {**found, "gates": [result.as_dict() for result in results]}
    files = write_comparison(comparison, out)
    write_json(comparison, json_file)
    if json_file != STANDARD_OUTPUT:
        for line in [*summary(comparison), *map(str, results), *map(str, files)]:
            typer.echo(line)
    require_passed(results)
