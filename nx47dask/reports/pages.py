"""Write sections of sentences and tables as a Markdown page and as a self-contained HTML page."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nx47dask.errors import InputError
from nx47dask.files.atomic import write_text
from nx47dask.reports.markup import Html, document, header, joined, listing, table, text
from nx47dask.words import plural

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "Page",
    "Section",
    "Table",
    "markdown_escaped",
    "markdown_table",
    "page_files",
    "refuse_others",
    "write_page",
]

HASH_DIGITS = 12
MARKDOWN_ROWS = 40
"""Largest number of rows of a Markdown table, as a pull request has little room."""


@dataclass(frozen=True)
class Table:
    """Table of cells as text; ``columns`` has one letter per column, as in :func:`~nx47dask.reports.markup.table`."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    columns: str


@dataclass(frozen=True)
class Section:
    """Section of a page: heading, sentences, tables and, in HTML only, figures."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Html] = ()


@dataclass(frozen=True)
class Page:
    """Contents of both pages; ``notes`` for the reader; ``passed``: True if all gates passed, None without gates."""

    title: str
    verdict: str
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    passed: bool | None = None


def page_files(stem: str) -> tuple[str, ...]:
    """Return the names of the files of :func:`write_page`."""
    return tuple(f"{stem}.{suffix}" for suffix in ("md", "csv", "json", "html"))


def refuse_others(stem: str, out: Path, allowed: Collection[str] = ()) -> None:
    """Refuse a folder for the files of :func:`write_page` that holds other files than these and the allowed ones.

    Raises
    ------
    InputError
        The folder holds other files, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, not a folder", hint="choose another --out")
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    known = {*page_files(stem), *allowed}
    others = [name for name in names if name not in known and not name.startswith(f".{stem}.")]
    if others:
        raise InputError(f"{out}: holds something else ({', '.join(others[:5])})", hint="choose another --out")


def write_page(
    stem: str, page: Page, rows: Sequence[Mapping[str, Any]], values: Mapping[str, Any], out: Path
) -> list[Path]:
    """Write a page for a pull request, a page for a browser, rows as CSV and values as JSON.

    Parameters
    ----------
    stem : str
        Name of the files, without suffix.
    page : Page
    rows : sequence of mapping
        One row or more, all with the same keys.
    values : mapping
    out : Path
        Folder; the same contents give the same bytes.

    Returns
    -------
    list of Path
        Paths of the files.

    Raises
    ------
    StorageError
        A file cannot be written.
    """
    contents = (_markdown(page), _csv(rows), json.dumps(values, indent=1) + "\n", _html(page))
    files = [out / name for name in page_files(stem)]
    for file, content in zip(files, contents, strict=True):
        write_text(file, content)
    return files


def _markdown(page: Page) -> str:
    """Return a page for a pull request; long tables and hashes are cut, figures are left out."""
    parts = [f"# {markdown_escaped(page.title)}", f"**{markdown_escaped(page.verdict)}**"]
    parts += map(markdown_escaped, page.notes)
    for section in page.sections:
        parts += [f"## {markdown_escaped(section.title)}", *map(markdown_escaped, section.sentences)]
        parts += map(markdown_table, section.tables)
    return "\n\n".join(parts) + "\n"


def _html(page: Page) -> str:
    noted = listing("warnings", "Notes", [f"<li>{text(note)}</li>" for note in page.notes])
    top = header(page.title, page.verdict, page.passed, noted)
    return document(page.title, joined([top, "<main>", *map(_html_section, page.sections), "</main>"]))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _html_section(section: Section) -> Html:
    return joined(
        [
            f"<h2>{text(section.title)}</h2>",
            *(f"<p>{text(sentence)}</p>" for sentence in section.sentences),
            *(table(entry.caption, entry.head, entry.rows, entry.columns) for entry in section.tables),
            f'<div class="curves">{joined(section.figures)}</div>' if section.figures else "",
        ]
    )


def markdown_table(table: Table) -> str:
    """Return a table with its caption as Markdown; the HTML page has the rows that are left out."""
    caption = table.caption if table.caption.endswith(".") else f"{table.caption}."
    rule = " | ".join("---:" if letter == "n" else ":---" for letter in table.columns)
    head, *rows = (" | ".join(_cells(line, table.columns)) for line in [table.head, *table.rows[:MARKDOWN_ROWS]])
    drawn = "\n".join(f"| {line} |" for line in [head, rule, *rows])
    left = len(table.rows) - MARKDOWN_ROWS
    more = f"\n\n{plural(left, 'row')} more in the HTML page." if left > 0 else ""
    return f"{markdown_escaped(caption)}\n\n{drawn}{more}"


def markdown_escaped(words: str) -> str:
    """Escape text for Markdown, so that it is shown as it is."""
    for mark in "\\`*_|<[&":
        words = words.replace(mark, f"\\{mark}")
    return words.replace("\n", " ")


def _cells(line: Sequence[str], columns: str) -> list[str]:
    """Return cells as Markdown; a hash is cut to its beginning, which is distinct."""
    cells = (_shortened(cell) if letter == "h" else cell for cell, letter in zip(line, columns, strict=True))
    return [markdown_escaped(cell) for cell in cells]


def _shortened(cell: str) -> str:
    return cell[:HASH_DIGITS] if re.fullmatch(r"[0-9a-f]{32,}", cell) else cell
