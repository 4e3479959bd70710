"""``report.md``: the report for a pull request."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import yaml

from nx47dask.report.content import measure_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nx47dask.report.content import Facts

__all__ = ["markdown_report"]

HEAD = ("mean", "this run", "baseline", "difference", "95 % interval", "higher", "lower", "equal", "p")


def markdown_report(facts: Facts) -> str:
    """Verdict, gates, warnings, means and the workflow as Markdown."""
    parts = [f"## {_escaped(facts.name)}", f"**{_escaped(facts.verdict)}**", *map(_escaped, facts.about)]
    parts += [_listed("Gates", [str(result) for result in facts.gates]), _listed("Warnings", facts.warnings)]
    parts += [_table(facts), _workflow(facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(facts: Facts) -> str:
    if not facts.measures:
        return ""
    head = HEAD if facts.baseline else HEAD[:2]
    rows = [
        (measure.title, measure.value(measure.run), *(measure_cells(measure) if facts.baseline else ()))
        for measure in facts.measures
    ]
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *(tuple(map(_escaped, row)) for row in rows)]
    return _escaped(facts.caption) + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(title: str, items: Sequence[str]) -> str:
    return "\n".join([f"**{title}**\n", *(f"- {_escaped(item)}" for item in items)]) if items else ""


def _workflow(facts: Facts) -> str:
    workflow = facts.run.manifest["workflow"]
    resolved = yaml.safe_dump(
        {key: value for key, value in workflow.items() if key != "name"}, sort_keys=False, default_flow_style=None
    )
    return (
        f"<details><summary>Workflow {escape(workflow['name'])}</summary>\n\n```yaml\n{resolved}```\n\n"
        f"Plan {facts.run.manifest['plan_sha256']}\n\n</details>"
    )


def _escaped(text: str) -> str:
    for mark in "\\`*_|[":
        text = text.replace(mark, f"\\{mark}")
    return escape(text, quote=False).replace("\n", " ")
