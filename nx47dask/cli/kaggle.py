"""Commands for code competitions without a network: kaggle bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["commands"]

commands = typer.Typer(
    name="kaggle", help="For notebooks without a network, as in code competitions.", no_args_is_help=True
)


@commands.command()
def bundle(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the bundle.", show_default=False)],
    without_torch: Annotated[
        bool, typer.Option("--without-torch", help="Leave out torch, which the offline machine has.")
    ] = False,
) -> None:
    """Collect the wheels that an offline machine needs, and prove that they install and run without a network."""
    from nx47dask.commands.bundle import bundle as make_bundle

    made = make_bundle(out, without_torch=without_torch)
    for name in ("install.sh", "requirements.txt", "SHA256SUMS", "wheels"):
        typer.echo(made / name)
