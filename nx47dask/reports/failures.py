"""What failed in every try, with its place and its traceback, for both forms of the report."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from nx47dask.reports.markup import Html, joined, text
from nx47dask.words import plural

if TYPE_CHECKING:
    from nx47dask.runs.run import Run

__all__ = ["failures_html", "failures_markdown"]

ADVICE = "Each was tried until it was clear that trying again does not help. Mend the cause, then go on with --resume."


def failures_html(run: Run) -> Html:
    """A section of blocks that failed; nothing where there are none."""
    if not run.failures:
        return Html("")
    items = (
        f"<li><strong>{text(one['volume'])}, {text(one['stage'])}, {text(one['place'])}</strong>, "
        f"tried {text(plural(one['attempt'], 'time'))}<p>{text(one['message'])}</p>"
        f"<details><summary>Traceback</summary><pre>{text(one['traceback'])}</pre></details></li>"
        for one in run.failures
    )
    heading = f"<h2>{text(plural(len(run.failures), 'block'))} quarantined</h2>"
    return joined([heading, f"<p>{ADVICE}</p>", '<ul class="failures">', *items, "</ul>"])


def failures_markdown(run: Run) -> str:
    """The same as Markdown."""
    if not run.failures:
        return ""
    items = (
        f"<details><summary>{escape(one['volume'])}, {escape(one['stage'])}, {escape(one['place'])}</summary>\n\n"
        f"<pre>{escape(one['message'])}\n\n{escape(one['traceback'])}</pre>\n\n</details>"
        for one in run.failures
    )
    return "\n\n".join([f"**{plural(len(run.failures), 'block')} quarantined.** {ADVICE}", *items])
