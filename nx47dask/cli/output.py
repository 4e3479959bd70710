"""Write output that several commands share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from nx47dask.errors import InputError

__all__ = ["STANDARD_OUTPUT", "JsonFile", "write_json"]

STANDARD_OUTPUT = "-"


def _writable(target: str | None) -> str | None:
    """Refuse a file that cannot be written before the work, not after it."""
    if target not in (None, STANDARD_OUTPUT):
        folder = Path(target).parent
        if Path(target).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(f"--json {target}: cannot be written", hint="name a file in a folder that is there, or -")
    return target


JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE|-", help="Write everything as JSON; - is standard output.", callback=_writable
    ),
]


def write_json(value: Any, target: str | None) -> None:
    """Write JSON values to a file or to standard output, if a target is given."""
    if target is None:
        return
    text = json.dumps(value, indent=1)
    if target == STANDARD_OUTPUT:
        typer.echo(text)
        return
    from nx47dask.files.atomic import write_text

    write_text(Path(target), text + "\n")
