"""Passes, compiled from a chain of steps: each is one task per block and one write.

Adjacent local steps are fused into one pass with the summed radius. A rule on components (or a quantile) needs all
blocks. It ends a pass with a *scan* that leaves a summary, and the next pass starts by *resolving* the verdict.
Adjacent rules on the same components share one scan. A verdict holds for a block's core only, so local steps with a
radius start a new pass after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nx47dask.errors import WorkflowError
from nx47dask.geometry import Index, add_radii
from nx47dask.kernels.components import AttributeName, Labelling
from nx47dask.steps.base import Binarise, ComponentStep, Kind, LocalStep, Step

__all__ = ["ComponentScan", "NamedStep", "Pass", "QuantileScan", "compile_passes", "describe"]


@dataclass(frozen=True)
class NamedStep:
    """Step with its name in the workflow (``closing``, and ``closing#2`` for the second)."""

    name: str
    step: Step


@dataclass(frozen=True)
class ComponentScan:
    """Labelling of components and the rules that share it, in order."""

    labelling: Labelling
    rules: tuple[tuple[str, ComponentStep], ...]

    @property
    def attributes(self) -> tuple[AttributeName, ...]:
        """Names of the component attributes that the rules need, sorted."""
        return tuple(sorted({name for _, rule in self.rules for name in rule.attributes}))

    def decide(self, attributes: Mapping[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
        """Return the verdict on each component: 0 leaves it, k is the first rule (from 1) that changes it."""
        verdict = np.zeros(len(attributes[self.attributes[0]]), dtype=np.uint8)
        for number, (_, rule) in enumerate(self.rules, start=1):
            verdict[(verdict == 0) & rule.changes(attributes)] = number
        return verdict


@dataclass(frozen=True)
class QuantileScan:
    """Thresholds that are quantiles of the probability, so that a histogram must come first."""

    thresholds: Binarise


@dataclass(frozen=True)
class Pass:
    """Work of one task per block: resolve a verdict, apply local steps, scan for the next verdict.

    Attributes
    ----------
    number : int
        Position, from 0.
    resolve : ComponentScan or None
        Scan of the pass before; this pass first applies its verdict.
    local : tuple of (str, LocalStep)
        Local steps, in order.
    scan : ComponentScan, QuantileScan or None
        Summary to make of the result.
    writes : bool
        False when the pass only scans, so that its result is its input.
    """

    number: int
    resolve: ComponentScan | None = None
    local: tuple[tuple[str, LocalStep], ...] = ()
    scan: ComponentScan | QuantileScan | None = None
    writes: bool = True

    @property
    def radius_zyx(self) -> Index:
        return add_radii(*(step.radius_zyx() for _, step in self.local))

    @property
    def gives(self) -> Kind:
        """Kind of the result that the pass writes, if it writes."""
        return self.local[-1][1].gives if self.local else "mask"

    @property
    def reads_image(self) -> bool:
        return any(step.reads_image for _, step in self.local)


@dataclass
class _Builder:
    passes: list[Pass] = field(default_factory=list)
    resolve: ComponentScan | None = None
    local: list[tuple[str, LocalStep]] = field(default_factory=list)

    def flush(self, scan: ComponentScan | QuantileScan | None = None) -> None:
        writes = self.resolve is not None or bool(self.local)
        self.passes.append(Pass(len(self.passes), self.resolve, tuple(self.local), scan, writes))
        self.resolve = scan if isinstance(scan, ComponentScan) else None
        self.local = []


def compile_passes(steps: Sequence[NamedStep]) -> tuple[Pass, ...]:
    """Group the steps of a workflow into passes.

    Raises
    ------
    WorkflowError
        A step takes another kind than the step before gives, or the chain does not end in a mask.
    """
    _check_kinds(steps)
    parts = [(named.name, part) for named in steps for part in named.step.parts()]
    build = _Builder()
    rules: list[tuple[str, ComponentStep]] = []
    for position, (name, part) in enumerate(parts):
        if isinstance(part, ComponentStep):
            rules.append((name, part))
            following = parts[position + 1][1] if position + 1 < len(parts) else None
            if isinstance(following, ComponentStep) and following.labelling() == part.labelling():
                continue
            build.flush(ComponentScan(part.labelling(), tuple(rules)))
            rules = []
        elif isinstance(part, LocalStep):
            if build.resolve and any(part.radius_zyx()):
                build.flush()
            if isinstance(part, Binarise) and part.by != "value":
                build.flush(QuantileScan(part))
            build.local.append((name, part))
    if build.resolve or build.local:
        build.flush()
    return tuple(build.passes)


def describe(current: Pass) -> str:
    """Describe a pass in words, for the plan and the progress line."""
    words = []
    if current.resolve:
        words.append("apply " + " + ".join(name for name, _ in current.resolve.rules))
    words += [name for name, step in current.local if not isinstance(step, Binarise)]
    words += [f"threshold ({name})" for name, step in current.local if isinstance(step, Binarise)]
    if isinstance(current.scan, ComponentScan):
        words.append("label for " + " + ".join(name for name, _ in current.scan.rules))
    elif current.scan:
        words.append(f"histogram per {current.scan.thresholds.by}")
    return ", ".join(words)


def _check_kinds(steps: Sequence[NamedStep]) -> None:
    kind: Kind = "probability"
    for position, named in enumerate(steps):
        if named.step.takes != kind:
            giver = f"{steps[position - 1].name} gives a {kind}" if position else f"detection gives a {kind}"
            hint = "put threshold or hysteresis before it" if kind == "probability" else "put it before the threshold"
            raise WorkflowError(f"postprocess: {named.name} takes a {named.step.takes}, but {giver}", hint=hint)
        kind = named.step.gives
    if kind != "mask":
        raise WorkflowError(
            "postprocess: the chain ends in a probability, not a mask", hint="add threshold or hysteresis"
        )
