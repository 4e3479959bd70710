"""Make pieces of HTML; text is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Cell", "Html", "bar", "document", "header", "joined", "listing", "table", "text"]

_KINDS = {"t": "text", "p": "prose", "h": "hash", "n": ""}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


class Cell(NamedTuple):
    """Table cell that is sorted by another value than it shows."""

    shown: object
    value: float


def text(value: object) -> Html:
    """Return a value as escaped HTML."""
    return value if isinstance(value, Html) else Html(escape(str(value), quote=True))


def joined(parts: Iterable[str]) -> Html:
    """Join parts that are HTML already."""
    return Html("\n".join(parts))


def table(
    caption: str,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    columns: str,
    *,
    sortable: bool = False,
) -> Html:
    """Make a table whose first column names its rows.

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
        True if the script of the page turns the titles into buttons that sort.
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
    """Make a bar for a share (0 to 1) in a table cell; screen readers read the number beside it."""
    return Html(f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>')


def header(title: str, verdict: str, passed: bool | None, *parts: Html) -> Html:
    """Make the top of a page: its title, the outcome in large type, and details.

    Where gates were checked (``passed`` is not None), the outcome begins with a coloured word.
    """
    words = {None: "", True: '<strong class="good">Passed</strong> ', False: '<strong class="bad">Failed</strong> '}
    outcome = f'<p class="verdict">{words[passed]}{text(verdict)}</p>'
    return joined(["<header>", f"<h1>{text(title)}</h1>", outcome, *parts, "</header>"])


def listing(kind: str, label: str, items: Iterable[str]) -> Html:
    """Make a list of a class (``gates``, ``warnings``) from items that are HTML already; empty without items."""
    listed = "".join(items)
    return Html(f'<ul class="{kind}" aria-label="{text(label)}">{listed}</ul>' if listed else "")


def document(title: str, body: str, *, script: bool = False) -> str:
    """Make a whole page with the style of the report, and its script if the page needs it."""
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


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _row(row: Sequence[object], kinds: Sequence[str]) -> str:
    cells = "".join(_cell(cell, kind) for cell, kind in zip(row[1:], kinds[1:], strict=True))
    return f'<tr><th scope="row"{_class(kinds[0])}>{text(row[0])}</th>{cells}</tr>'


def _cell(cell: object, kind: str) -> str:
    if isinstance(cell, Cell):
        return f'<td{_class(kind)} data-value="{cell.value:g}">{text(cell.shown)}</td>'
    return f"<td{_class(kind)}>{text(cell)}</td>"
