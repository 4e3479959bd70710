"""Write ``report.md``, the report for a pull request."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import yaml

from nx47dask.reports.failures import failures_markdown
from nx47dask.reports.pages import Table, markdown_escaped, markdown_table
from nx47dask.words import PAIRED_HEAD, paired_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nx47dask.reports.content import Facts

__all__ = ["markdown_report"]

HEAD = ("mean", "this run", "baseline", "difference", *PAIRED_HEAD)


def markdown_report(facts: Facts) -> str:
    """Return verdict, gates, warnings, means and the workflow as Markdown."""
    parts = [f"## {markdown_escaped(facts.run.name)}", f"**{markdown_escaped(facts.verdict)}**"]
    parts += map(markdown_escaped, facts.about)
    parts += [_listed("Gates", [str(result) for result in facts.gates]), _listed("Warnings", facts.warnings)]
    parts += [failures_markdown(facts.run), _measures(facts), _workflow(facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _measures(facts: Facts) -> str:
    if not facts.measures:
        return ""
    head = HEAD if facts.baseline else HEAD[:2]
    rows = [[mean.title, *mean.cells, *paired_cells(mean.name, mean.paired)][: len(head)] for mean in facts.measures]
    return markdown_table(Table(facts.caption, head, rows, "t" + "n" * (len(head) - 1)))


def _listed(title: str, items: Sequence[str]) -> str:
    return "\n".join([f"**{title}**\n", *(f"- {markdown_escaped(item)}" for item in items)]) if items else ""


def _workflow(facts: Facts) -> str:
    workflow = facts.run.manifest["workflow"]
    resolved = yaml.safe_dump(
        {key: value for key, value in workflow.items() if key != "name"}, sort_keys=False, default_flow_style=None
    )
    return (
        f"<details><summary>Workflow {escape(workflow['name'])}</summary>\n\n```yaml\n{resolved}```\n\n"
        f"Plan {facts.run.manifest['plan_sha256']}\n\n</details>"
    )
