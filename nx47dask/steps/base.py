"""Post-processing steps: their base classes.

A step is a frozen dataclass. Its fields are its parameters, with their limits, usual search ranges and units (see
:mod:`nx47dask.steps.parameters`). Its docstring has a sentence for each parameter. The class gives the input, the
output and the action. The workflow schema, the plan, the manifest, the space that a calibration searches and the table
in the docs are all derived from this one definition. There are two kinds:

- :class:`LocalStep`: the output at a voxel depends on the input within a radius. Radii of adjacent steps add up.
- :class:`ComponentStep`: removes or fills whole connected components by an associative attribute. Adjacent steps on
  the same components share one labelling.

A step that does both (hysteresis: two thresholds, then a rule on components) lists its parts in :meth:`Step.parts`.
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
"""Meaning of a threshold: a probability, or a quantile of the probability over the volume or over each slice."""


@dataclass(frozen=True)
class Step:
    """Step of the post-processing chain."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    takes: ClassVar[Kind] = "mask"
    gives: ClassVar[Kind] = "mask"
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""
    tried_without: ClassVar[bool] = True
    """True if a search also tries the chain without the step; never for the step that makes the mask."""

    @classmethod
    def makes_mask(cls) -> bool:
        """Return True for a step that turns a probability into a mask; every chain needs one."""
        return cls.takes != cls.gives

    def search(self) -> dict[str, Dimension]:
        """Return the usual search range of each parameter that has one; choices include the step's own value.

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
        """Return the steps of a single kind that this step consists of."""
        return (self,)

    def problem(self) -> str | None:
        """Describe a conflict between parameters; None if there is none."""
        return None


@dataclass(frozen=True)
class LocalStep(Step, ABC):
    """Step whose output at a voxel depends on the input within a radius."""

    reads_image: ClassVar[bool] = False

    def radius_zyx(self) -> Index:
        """Return the reach of the step in voxels along each axis."""
        return (0, 0, 0)

    @abstractmethod
    def apply(
        self, data: NDArray[np.unsignedinteger], image: NDArray[np.unsignedinteger] | None
    ) -> NDArray[np.unsignedinteger]:
        """Apply the step to a block with context; voxels closer to an artificial edge than the radius may be wrong."""


@dataclass(frozen=True)
class Binarise(LocalStep):
    """Thresholds, rising: the state 0, 1, 2, ... of a voxel is the number of thresholds that it reaches."""

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
    """Step that changes the state of whole components: it removes foreground or fills background.

    Parameters
    ----------
    connectivity : {6, 18, 26}
        Voxels that count as touching: 6 through faces, 18 also through edges, 26 also through corners. Lower it where
        components that meet at a corner should count as two.
    per_slice : bool
        Look for components in each slice alone (6 is then 4, 18 and 26 are 8), not through the whole volume.
    """

    background: ClassVar[bool] = False

    connectivity: Connectivity = 26
    per_slice: bool = False

    def labelling(self) -> Labelling:
        """Return the labelling of the components that the step acts on."""
        return Labelling(self.connectivity, self.background, self.per_slice)

    @property
    @abstractmethod
    def attributes(self) -> tuple[AttributeName, ...]:
        """Names of the component attributes that the step needs."""

    @abstractmethod
    def changes(self, attributes: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
        """Return True for each component to change, from attributes of shape (components,)."""
