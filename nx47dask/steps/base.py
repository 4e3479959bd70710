"""What a post-processing step is.

A step is a frozen dataclass: its fields are its parameters, with their limits as pydantic constraints; its class says
what it takes and gives and how it acts. The workflow schema, the plan, the manifest and the table in the docs all
derive from that one definition. There are two kinds:

- :class:`LocalStep`: the output at a voxel depends on the input within a radius. Radii of adjacent steps add up.
- :class:`ComponentStep`: keeps or changes whole connected components by an associative attribute. Adjacent steps on
  the same components share one labelling.

A step that does both (hysteresis: two thresholds, then a rule on components) names its parts in :meth:`Step.parts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from nx47dask.geometry import Index
from nx47dask.kernels.components import AttributeName, Connectivity, Labelling
from nx47dask.kernels.probability import binarise, level_of

__all__ = ["Binarise", "ComponentStep", "Kind", "LocalStep", "Step", "ThresholdBasis"]

Kind = Literal["probability", "mask"]
ThresholdBasis = Literal["value", "volume", "slice"]
"""A threshold is a probability, or a quantile of the probability over the volume or over each slice."""


@dataclass(frozen=True)
class Step:
    """A step of the post-processing chain."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    takes: ClassVar[Kind] = "mask"
    gives: ClassVar[Kind] = "mask"
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    def parts(self) -> tuple[Step, ...]:
        """The steps of a single kind that this one consists of."""
        return (self,)

    def problem(self) -> str | None:
        """What is wrong with the combination of parameters, if anything."""
        return None


@dataclass(frozen=True)
class LocalStep(Step, ABC):
    """A step whose output at a voxel depends on the input within a radius."""

    reads_image: ClassVar[bool] = False

    def radius_zyx(self) -> Index:
        """Reach of the step in voxels."""
        return (0, 0, 0)

    @abstractmethod
    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        """Run on a block with context; voxels nearer to an artificial edge than the radius may come out wrong."""


@dataclass(frozen=True)
class Binarise(LocalStep):
    """Thresholds: the state 0, 1, 2, ... of a voxel is the number of rising thresholds that it reaches."""

    takes: ClassVar[Kind] = "probability"
    thresholds: tuple[float, ...] = (0.5,)
    by: ThresholdBasis = "value"

    def apply(
        self,
        data: NDArray[np.unsignedinteger],
        image: NDArray[np.unsignedinteger] | None = None,
        levels: NDArray[np.int64] | None = None,
    ) -> NDArray[np.uint8]:
        if levels is None:
            levels = np.array([[level_of(value, data.dtype) for value in self.thresholds]], dtype=np.int64)
        return binarise(data, levels)


@dataclass(frozen=True)
class ComponentStep(Step, ABC):
    """A step that changes the state of whole components: it removes foreground or fills background.

    Parameters
    ----------
    connectivity : {6, 18, 26}
        Which voxels touch: through faces; also through edges; also through corners.
    per_slice : bool
        Every slice on its own (6 is then 4, 18 and 26 are 8).
    """

    background: ClassVar[bool] = False

    connectivity: Connectivity = 26
    per_slice: bool = False

    def labelling(self) -> Labelling:
        """Which components the step looks at."""
        return Labelling(self.connectivity, self.background, self.per_slice)

    @property
    @abstractmethod
    def attributes(self) -> tuple[AttributeName, ...]:
        """What the step needs to know of a component."""

    @abstractmethod
    def changes(self, attributes: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        """Which components to change, from their attributes, shape (components,)."""
