"""Describe detectors and steps from their definitions, for ``nx47dask steps`` and ``docs/steps.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from nx47dask.detectors import DETECTORS
from nx47dask.steps import STEPS, ComponentStep, LocalStep, Step
from nx47dask.steps.parameters import parameters
from nx47dask.workflow import Settings

__all__ = ["reference_text"]


def reference_text() -> str:
    """Return all detectors and steps with their parameters, as Markdown."""
    lines = ["# Detectors and steps", ""]
    lines += ["Keys of a workflow file, and what each is for; printed by `nx47dask steps`.", ""]
    lines += ["## detect", "", "Every source but `residual_band` also takes `weight` (above 0, default 1).", ""]
    for name, kind in DETECTORS.items():
        lines += [*_entry(name, kind, "")]
    lines += ["## beside detect and postprocess", "", *_table(Settings)]
    lines += ["## postprocess", ""]
    for name, step in STEPS.items():
        lines += [*_entry(name, step, f" ({_kind(step)})")]
    return "\n".join(lines).rstrip()


def _entry(name: str, kind: type, note: str) -> Iterator[str]:
    summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    yield from (f"### {name}{note}", "", _markdown(summary), "")
    yield from _table(kind)


def _table(kind: type) -> Iterator[str]:
    rows = parameters(kind).values()
    if rows:
        yield from ("| parameter | default | allowed | meaning |", "| --- | --- | --- | --- |")
        for row in rows:
            allowed = _allowed(row.schema, row.unit)
            yield f"| {row.name} | {_plain(row.default)} | {allowed} | {_markdown(row.meaning)} |"
        yield ""


def _kind(step: type[Step]) -> str:
    parts = step().parts()
    kinds = ["component attribute" if isinstance(part, ComponentStep) else "local" for part in parts]
    radius = next((part.radius_zyx() for part in parts if isinstance(part, LocalStep) and any(part.radius_zyx())), None)
    reach = f", radius {','.join(map(str, radius))} by default" if radius else ""
    return f"{step.takes} to {step.gives}; {' + '.join(dict.fromkeys(kinds))}{reach}"


def _allowed(schema: Mapping[str, Any], unit: str) -> str:
    """Describe the values that a JSON schema allows: ``integer, 1 to 16 (voxels)``."""
    if "anyOf" in schema:
        return " or ".join(_allowed(choice, unit) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        item = schema["prefixItems"][0] if "prefixItems" in schema else schema["items"]
        least, most = schema.get("minItems", 0), schema["maxItems"]
        return f"{most if least == most else f'{least} to {most}'} of: {_allowed(item, unit)}"
    number = ", ".join([schema["type"], *_limits(schema)])
    return f"{number} ({unit})" if unit and schema["type"] != "null" else number


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    """Describe the limits of a number: ``1 to 16``, ``above 0, at most 8``, ``at least 1``."""
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        yield f"{least} to {most}"
        return
    named = {"above": schema.get("exclusiveMinimum"), "at least": least, "at most": most}
    yield from (f"{words} {limit}" for words, limit in named.items() if limit is not None)


def _plain(value: Any) -> str:
    return "null" if value is None else str(list(value)) if isinstance(value, tuple) else str(value).lower()


def _markdown(text: str) -> str:
    """Turn the text of a docstring into Markdown."""
    return text.replace("``", "`")
