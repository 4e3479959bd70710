"""What a post-processing step is.

A step is a frozen dataclass: its fields are its parameters, with their limits, usual search ranges and units (see
:mod:`nx47dask.steps.parameters`); its docstring has a sentence for each; its class says what it takes and gives and how
it acts. The workflow schema, the plan, the manifest, the space that a calibration searches and the table in the docs
all derive from that one definition. There are two kinds:

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
from nx47dask.steps.dimensions import Choices, Dimension
from nx47dask.steps.parameters import parameters

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
    tried_without: ClassVar[bool] = True
    """A search also tries the chain without the step, unless it is what makes the mask."""

    @classmethod
    def makes_mask(cls) -> bool:
        """Return True for a step that makes a mask of a probability: a chain needs it."""
        return cls.takes != cls.gives

    def search(self) -> dict[str, Dimension]:
        """Return the usual search range of each parameter that has one, with its own value among choices.

        ``use``, which is no parameter, comes first where a search may leave the step out.
        """
        ranges: dict[str, Dimension] = {}
        if self.tried_without and not self.makes_mask():
            ranges["use"] = Choices((True, False))
        for name, parameter in parameters(type(self)).items():
            if parameter.search is not None:
                ranges[name] = parameter.search.including(getattr(self, name))
        return ranges

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
        Voxels that count as touching: 6 through faces, 18 also through edges, 26 also through corners. Lower it where
        components that meet at a corner should count as two.
    per_slice : bool
        Look for components in each slice by itself (6 is then 4, 18 and 26 are 8), not through the whole volume.
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
