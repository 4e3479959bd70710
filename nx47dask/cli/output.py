"""What several commands print in the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

__all__ = ["STANDARD_OUTPUT", "write_json"]

STANDARD_OUTPUT = "-"


def write_json(value: Any, target: str | None) -> None:
    """Write JSON values to a file or to standard output, if a target was given."""
    if target is None:
        return
    text = json.dumps(value, indent=1)
    if target == STANDARD_OUTPUT:
        typer.echo(text)
        return
    from nx47dask.io import write_text

    write_text(Path(target), text + "\n")
