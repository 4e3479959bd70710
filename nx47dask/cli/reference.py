"""The table of detectors and steps, derived from their definitions: for ``nx47dask steps`` and ``docs/steps.md``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from nx47dask.detectors import DETECTORS
from nx47dask.steps import STEPS, ComponentStep, LocalStep, Step
from nx47dask.workflow import Settings

__all__ = ["reference_text"]


def reference_text() -> str:
    """All detectors and steps with their parameters, as Markdown."""
    lines = ["# Detectors and steps", "", "Keys of a workflow file; printed by `nx47dask steps`.", ""]
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
    yield from (f"### {name}{note}", "", summary, "")
    yield from _table(kind)


def _table(kind: type) -> Iterator[str]:
    properties = TypeAdapter(kind).json_schema()["properties"]
    if properties:
        yield from ("| parameter | default | allowed |", "| --- | --- | --- |")
        for field in dataclasses.fields(kind):
            yield f"| {field.name} | {_plain(field.default)} | {_allowed(properties[field.name])} |"
        yield ""


def _kind(step: type[Step]) -> str:
    parts = step().parts()
    kinds = ["component attribute" if isinstance(part, ComponentStep) else "local" for part in parts]
    radius = next((part.radius_zyx() for part in parts if isinstance(part, LocalStep) and any(part.radius_zyx())), None)
    reach = f", radius {','.join(map(str, radius))} by default" if radius else ""
    return f"{step.takes} to {step.gives}; {' + '.join(dict.fromkeys(kinds))}{reach}"


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        item = schema["prefixItems"][0] if "prefixItems" in schema else schema["items"]
        count = schema.get("maxItems", "any number")
        return f"{count} of: {_allowed(item)}"
    limits = [
        f"{sign} {schema[key]}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if key in schema
    ]
    return " ".join([schema["type"], ", ".join(limits)]).strip()


def _plain(value: Any) -> str:
    return "null" if value is None else str(list(value)) if isinstance(value, tuple) else str(value).lower()
