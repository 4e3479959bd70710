"""Sections of sentences and tables as a Markdown page and as an HTML page that needs no other file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nx47dask.report.markup import Html, document, joined, plural, table, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nx47dask.report.compare_tables import Section, Table

__all__ = ["html_page", "markdown_page"]

HASH_DIGITS = 12
MARKDOWN_ROWS = 40
"""Rows of a Markdown table; a pull request is no place for more."""


def markdown_page(title: str, verdict: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """A page for a pull request; long tables and hashes are cut, figures are left out."""
    parts = [f"# {_escaped(title)}", f"**{_escaped(verdict)}**", *map(_escaped, notes)]
    for section in sections:
        parts += [f"## {_escaped(section.title)}", *map(_escaped, section.sentences)]
        parts += map(_markdown_table, section.tables)
    return "\n\n".join(parts) + "\n"


def html_page(title: str, verdict: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """One HTML file that needs no network."""
    listed = "".join(f"<li>{text(note)}</li>" for note in notes)
    body = joined(
        [
            f'<header>\n<h1>{text(title)}</h1>\n<p class="verdict">{text(verdict)}</p>',
            f'<ul class="warnings" aria-label="Notes">{listed}</ul>' if notes else "",
            "</header>\n<main>",
            *map(_html_section, sections),
            "</main>",
        ]
    )
    return document(title, body)


def _html_section(section: Section) -> Html:
    return joined(
        [
            f"<h2>{text(section.title)}</h2>",
            *(f"<p>{text(sentence)}</p>" for sentence in section.sentences),
            *(table(one.caption, one.head, one.rows, one.columns) for one in section.tables),
            f'<div class="curves">{joined(section.figures)}</div>' if section.figures else "",
        ]
    )


def _markdown_table(one: Table) -> str:
    caption = one.caption if one.caption.endswith(".") else f"{one.caption}."
    rule = " | ".join("---:" if letter == "n" else ":---" for letter in one.columns)
    head, *rows = (" | ".join(_cells(line, one.columns)) for line in [one.head, *one.rows[:MARKDOWN_ROWS]])
    drawn = "\n".join(f"| {line} |" for line in [head, rule, *rows])
    left = len(one.rows) - MARKDOWN_ROWS
    more = f"\n\n{plural(left, 'row')} more in the HTML page." if left > 0 else ""
    return f"{_escaped(caption)}\n\n{drawn}{more}"


def _cells(line: Sequence[str], columns: str) -> list[str]:
    """Cells as Markdown; of a hash its beginning, which tells it from others."""
    return [_escaped(cell[:HASH_DIGITS] if letter == "h" else cell) for cell, letter in zip(line, columns, strict=True)]


def _escaped(cell: str) -> str:
    for mark in "\\`*_|<[":
        cell = cell.replace(mark, f"\\{mark}")
    return cell.replace("\n", " ")
