"""Commands that check a submission before it is sent: validate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nx47dask.cli.output import STANDARD_OUTPUT, JsonFile, write_json
from nx47dask.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nx47dask.io.validation import Finding

__all__ = ["commands"]

commands = typer.Typer()

MOST_OF_A_KIND = 8
"""Findings of a code that are shown, since 120 missing masks are a single mistake. The JSON has all."""
NARROW_COLUMNS = 90


@commands.command()
def validate(
    submission: Annotated[Path, typer.Argument(metavar="ZIP", help="The submission zip.", show_default=False)],
    images: Annotated[
        Path, typer.Option("--images", metavar="DIR", help="The volumes it must have masks of.", show_default=False)
    ],
    json_path: JsonFile = None,
) -> None:
    """Check a submission zip against its images as the scorer reads it; exit code 4 when an error is found."""
    from nx47dask.commands.validate import validate as look_at
    from nx47dask.words import plural

    verdict = look_at(submission, images)
    write_json(verdict.record(), json_path)
    if json_path != STANDARD_OUTPUT:
        _show(verdict.findings)
    counts = (("error", verdict.errors), ("warning", verdict.warnings))
    counted = [plural(count, level) for level, count in counts if count]
    if not verdict.valid:
        raise GateError(f"{submission}: not valid: {', '.join(counted)}")
    if json_path != STANDARD_OUTPUT:
        typer.echo(", ".join([f"valid: {plural(verdict.masks, 'mask')}", *counted]))


def _show(findings: Sequence[Finding]) -> None:
    """Print a table on a wide terminal, plain lines elsewhere; errors first."""
    from rich.console import Console

    console = Console()
    rows = _rows(findings)
    if not console.is_terminal or console.width < NARROW_COLUMNS:
        for level, code, member, message in rows:
            where = f"{member}: " if member else ""
            typer.echo(f"{level:7}  {code:15}  {where}{message}")
    elif rows:
        console.print(_table(rows))


def _table(rows: Sequence[tuple[str, str, str, str]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "finding", "where"):
        table.add_column(title, no_wrap=title != "where", overflow="fold")
    table.add_column("what", ratio=1)
    for level, code, member, message in rows:
        style = "bold red" if level == "error" else "yellow"
        table.add_row(Text(level, style), Text(code), Text(member), Text(message))
    return table


def _rows(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """Return level, code, member and message of findings; of each code the first few, and the number of the others."""
    rows: list[tuple[str, str, str, str]] = []
    shown = Counter[tuple[str, str]]()
    totals = Counter((finding.level, finding.code) for finding in findings)
    for finding in sorted(findings, key=lambda finding: finding.level):
        kind = (finding.level, finding.code)
        shown[kind] += 1
        if shown[kind] <= MOST_OF_A_KIND:
            rows.append((*kind, _printable(finding.member), _printable(finding.message)))
        elif shown[kind] == totals[kind]:
            rows.append((finding.level, finding.code, "", f"and {totals[kind] - MOST_OF_A_KIND} more"))
    return rows


def _printable(text: str) -> str:
    """Escape text of a zip, whose names may hold control codes of terminals."""
    return text if text.isprintable() else ascii(text)
