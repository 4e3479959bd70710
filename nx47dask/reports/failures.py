"""List the blocks that failed in every try, with place and traceback, for both forms of the report."""

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
    """Return a section of the blocks that failed; empty without failures."""
    if not run.failures:
        return Html("")
    items = (
        f"<li><strong>{text(failure['volume'])}, {text(failure['stage'])}, {text(failure['place'])}</strong>, "
        f"tried {text(plural(failure['attempt'], 'time'))}<p>{text(failure['message'])}</p>"
        f"<details><summary>Traceback</summary><pre>{text(failure['traceback'])}</pre></details></li>"
        for failure in run.failures
    )
    heading = f"<h2>{text(plural(len(run.failures), 'block'))} quarantined</h2>"
    return joined([heading, f"<p>{ADVICE}</p>", '<ul class="failures">', *items, "</ul>"])


def failures_markdown(run: Run) -> str:
    """Return the section as Markdown."""
    if not run.failures:
        return ""
    items = (
        f"<details><summary>{escape(failure['volume'])}, {escape(failure['stage'])}, {escape(failure['place'])}"
        f"</summary>\n\n<pre>{escape(failure['message'])}\n\n{escape(failure['traceback'])}</pre>\n\n</details>"
        for failure in run.failures
    )
    return "\n\n".join([f"**{plural(len(run.failures), 'block')} quarantined.** {ADVICE}", *items])
