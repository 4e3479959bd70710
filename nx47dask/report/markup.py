"""Pieces of HTML that escape what they are given, and numbers in words."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Cell",
    "Html",
    "bar",
    "document",
    "duration",
    "joined",
    "mebibytes",
    "number",
    "percent",
    "plural",
    "table",
    "text",
]

_KINDS = {"t": "text", "p": "prose", "h": "hash", "n": ""}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


class Cell(NamedTuple):
    """A cell of a table that sorts by another value than the one it shows."""

    shown: object
    value: float


def text(value: object) -> Html:
    """Any value as HTML."""
    return value if isinstance(value, Html) else Html(escape(str(value), quote=True))


def joined(parts: Iterable[str]) -> Html:
    """Parts that are HTML already, one after the other."""
    return Html("\n".join(parts))


def table(
    caption: str,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    columns: str,
    *,
    sortable: bool = False,
) -> Html:
    """A table whose first column names its rows.

    Parameters
    ----------
    caption : str
    head : sequence
        Titles of the columns.
    rows : iterable of sequence
        Cells; everything that is not :class:`Html` is escaped.
    columns : str
        One letter per column: ``t`` text, ``p`` text in several lines, ``h`` hash, ``n`` number.
    sortable : bool
        Whether the page's script makes the titles buttons that sort.
    """
    kinds = [_KINDS[letter] for letter in columns]
    titles = "".join(
        f'<th scope="col"{_class("text" if kind else "")}>{text(title)}</th>'
        for kind, title in zip(kinds, head, strict=True)
    )
    lines = "\n".join(_row(row, kinds) for row in rows)
    label = escape(caption, quote=True)
    return Html(
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table{_class("sortable" * sortable)}>'
        f"<caption>{label}</caption>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def bar(share: float) -> Html:
    """A bar as long as a share (0 to 1) of its place in a table; the number beside it is what is read aloud."""
    return Html(f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>')


def document(title: str, body: str, *, script: bool = False) -> str:
    """A whole page with the report's style in it, and its script where it has something to do."""
    folder = Path(__file__).parent
    style = (folder / "style.css").read_text(encoding="utf-8")
    early = '<script>document.documentElement.className = "js"</script>\n' if script else ""
    late = f"<script>\n{(folder / 'script.js').read_text(encoding='utf-8')}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n{early}</head>\n<body>\n{body}\n{late}</body>\n</html>\n"
    )


def number(value: float) -> str:
    """12345 as ``12,345``; a fraction with two digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def percent(share: float) -> str:
    """0.1187 as ``11.9 %``; a small share with more digits, so that it does not look like none."""
    if share == 0:
        return "0 %"
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def plural(count: int, noun: str) -> str:
    """``1 volume``, ``1,200 volumes``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """``40 ms``, ``0.4 s``, ``34 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def mebibytes(size_bytes: float) -> str:
    """Bytes as MiB."""
    return f"{size_bytes / 2**20:,.0f} MiB"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _row(row: Sequence[object], kinds: Sequence[str]) -> str:
    cells = "".join(_cell(cell, kind) for cell, kind in zip(row[1:], kinds[1:], strict=True))
    return f'<tr><th scope="row"{_class(kinds[0])}>{text(row[0])}</th>{cells}</tr>'


def _cell(cell: object, kind: str) -> str:
    if isinstance(cell, Cell):
        return f'<td{_class(kind)} data-value="{cell.value:g}">{text(cell.shown)}</td>'
    return f"<td{_class(kind)}>{text(cell)}</td>"
