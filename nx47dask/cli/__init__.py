"""The command line, one module per group of commands.

Heavy libraries load when a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any

import typer

from nx47dask.cli import (
    baselines,
    calibrate,
    cluster,
    compare,
    kaggle,
    main_job,
    models,
    report,
    score,
    status,
    validate,
)
from nx47dask.errors import Nx47Error
from nx47dask.version import __version__

__all__ = ["app", "main"]

INTERRUPTED = 130
DEBUG = "--debug"

app = typer.Typer(
    help="Surface masks of rolled papyri from micro-CT volumes of any size, on any Dask cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(main_job.commands)
app.add_typer(score.commands)
app.add_typer(compare.commands)
app.add_typer(calibrate.commands)
app.add_typer(report.commands)
app.add_typer(baselines.commands)
app.add_typer(validate.commands)
app.add_typer(kaggle.commands)
app.add_typer(models.commands)
app.add_typer(cluster.commands)
app.add_typer(status.commands)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Options of every command."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    0 done; 1 internal error; 2 bad input or usage; 3 stopped part-way and resumable; 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        # A user adds --debug after an error, so it may stand anywhere on the line.
        app(args=[argument for argument in given if argument != DEBUG], standalone_mode=True)
    except Nx47Error as error:
        if DEBUG in given:
            traceback.print_exception(error)
        typer.echo(f"error: {error.message}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's, for a KeyboardInterrupt
            typer.echo("interrupted; go on with --resume", err=True)
        raise


def _interrupt(number: int, frame: FrameType | None) -> Any:
    """Treat the SIGTERM of a batch system like Ctrl-C, so that the run can be resumed."""
    raise KeyboardInterrupt
