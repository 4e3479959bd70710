"""Trained networks run over overlapping windows; the result has the same bytes however the volume is cut."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from nx47dask.errors import ModelError
from nx47dask.geometry import AXES, Box, Index, Placement, WindowLattice
from nx47dask.kernels.statistics import ScanStatistics
from nx47dask.kernels.windows import SUPPORT_CELL_VOX, blend_windows, occupied_cells, read_box, variants
from nx47dask.models import ModelInfo, describe_model
from nx47dask.models.backends import Device, Runtime, predictor_for, resolve_backend
from nx47dask.steps.parameters import Unit

__all__ = ["Learned", "LearnedDetector"]

_Edge = Annotated[int, Field(ge=1, le=1024)]
_Edges = Annotated[tuple[_Edge, _Edge, _Edge] | None, Unit("voxels")]


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained network, run over overlapping windows that are blended with integer sums.

    These are the settings of a workflow; :meth:`bind` finds the model and what runs it, once, when a run is planned.

    Parameters
    ----------
    model : str
        The network: ``surface``, which comes with the package, or the path of a file or of an nnU-Net folder.
    surface : int or str, optional
        Class of the surface, by number or name. Needed where the model has several classes and does not say which.
    overlap : float, optional
        Share of a window that the next window covers again. Raise it for fewer seams between windows at a higher cost;
        null takes the model's step.
    step_zyx : three ints, optional
        Distance of neighbouring windows, for each axis, in place of ``overlap``.
    window_zyx : three ints, optional
        Part of the volume that the network sees at once. Raise it for more context, lower it for less memory; null
        takes the model's window.
    placement : {"flush", "even"}, optional
        Placement of the windows: ``flush`` keeps the step and puts the last window flush with the edge, ``even`` spaces
        all equally. Null takes the model's placement.
    blend : {"gaussian", "constant"}
        Weights of the voxels of a window where windows overlap: ``gaussian`` gives its middle more weight, ``constant``
        gives all of it the same.
    values : {"probability", "logit"}, optional
        Terms in which overlapping windows are averaged. Log-odds (``logit``) give a sure window more weight. Null takes
        the model's terms.
    mirrors : tuple of "z", "y", "x"
        Axes along which the network also sees mirrored windows; the answers are averaged. Each axis makes the result
        steadier and doubles the time.
    rotations : bool
        Also turn windows in the slice by quarter turns: steadier, and up to four times as slow.
    support_level : int or null
        Grey value up to which a voxel is empty (0 in masked scans). Cells of 8 voxels that are all empty get a
        probability of 0 and cost nothing; with null there are no empty cells.
    skip : bool
        Leave out windows that no cell with papyrus depends on: faster, with the same result.
    device : {"auto", "cpu", "cuda"}
        Device that runs the network; ``auto`` takes a GPU if there is one.
    backend : {"auto", "openvino", "torch", "onnxruntime"}
        Library that runs the network; ``auto`` takes openvino on a CPU if it is installed, else torch.
    precision : {"float32", "bfloat16", "float16"}
        Number format of the network. The 16-bit ones are faster on a GPU and less exact.
    batch : int
        Windows that the network gets at once. Raise it on a GPU with free memory to be faster.
    compile : bool
        Compile the network with ``torch.compile``: faster after a slow start.
    threads : int
        Threads of the network on a CPU. Their number can change the last bits of the result. Blocks run in parallel, so
        1 is best.
    trust : bool
        Load pickles and import code that the model names. Both can run any code: use it only for a model whose origin
        you know.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    revision: ClassVar[int] = 1
    """Raised when the bits of a result change: part of the identity of every plan that uses it."""

    model: str = "surface"
    surface: int | str | None = None
    overlap: Annotated[Annotated[float, Field(ge=0, le=0.95)] | None, Unit("of a window")] = None
    step_zyx: _Edges = None
    window_zyx: _Edges = None
    placement: Placement | None = None
    blend: Literal["gaussian", "constant"] = "gaussian"
    values: Literal["probability", "logit"] | None = None
    mirrors: Annotated[tuple[Literal["z", "y", "x"], ...], Field(max_length=3)] = ()
    rotations: bool = False
    support_level: Annotated[Annotated[int, Field(ge=0, le=65535)] | None, Unit("grey value")] = 0
    skip: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "openvino", "torch", "onnxruntime"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch: Annotated[int, Field(ge=1, le=64), Unit("windows")] = 1
    compile: bool = False
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    trust: bool = False

    def problem(self) -> str | None:
        """Describe a conflict between parameters; None if there is none."""
        if self.overlap is not None and self.step_zyx is not None:
            return f"overlap {self.overlap} and step_zyx {list(self.step_zyx)} say the same; leave one out"
        if len(set(self.mirrors)) < len(self.mirrors):
            return f"mirrors {list(self.mirrors)} names an axis twice"
        return None

    def bind(self, device: Device | None = None) -> LearnedDetector:
        """Find the model and choose its runtime, when a run is planned.

        Parameters
        ----------
        device : {"cpu", "cuda"}, optional
            Device to take for ``device: auto``. By default it is CUDA where this machine has it.

        Raises
        ------
        ModelError
            The model, the backend or the device is not there, or a setting does not fit the model.
        """
        info = self._described()
        runtime = resolve_backend(
            info,
            device=device if device is not None and self.device == "auto" else self.device,
            backend=self.backend,
            precision=self.precision,
            batch=self.batch,
            compile=self.compile,
            threads=self.threads,
            trust=self.trust,
        )
        return LearnedDetector(self, info, runtime)

    def _described(self) -> ModelInfo:
        """Return the model's description, with the settings of the workflow in place of its own."""
        info = describe_model(self.model, trust=self.trust, surface=self.surface)
        window = self.window_zyx or info.window_zyx
        own_step = info.step_zyx if window == info.window_zyx else _step(window, 0.5)
        step = self.step_zyx or (own_step if self.overlap is None else _step(window, self.overlap))
        for axis, edge, distance in zip(AXES, window, step, strict=True):
            if distance > edge:
                raise ModelError(
                    f"{info.name}: a step of {distance} voxels along {axis} leaves gaps between windows of {edge}",
                    hint="lower step_zyx",
                )
        if self.rotations and window[1] != window[2]:
            raise ModelError(
                f"{info.name}: rotations turn the slice of a window, which is {window[1]} x {window[2]} voxels, not "
                "square",
                hint="leave out rotations or choose another window_zyx",
            )
        return replace(
            info,
            window_zyx=window,
            step_zyx=step,
            placement=self.placement or info.placement,
            values=self.values or info.values,
        )


@dataclass(frozen=True, slots=True)
class LearnedDetector:
    """Trained network as a :class:`~nx47dask.detectors.Detector`: small and picklable, the weights stay on disk.

    Attributes
    ----------
    settings : Learned
    info : ModelInfo
        The model, with the window, step, placement and values of the settings.
    runtime : Runtime
        Device, library and precision that run it.
    """

    settings: Learned
    info: ModelInfo
    runtime: Runtime

    def __str__(self) -> str:
        info = self.info
        window, step = ("x".join(map(str, edges)) for edges in (info.window_zyx, info.step_zyx))
        times = f", each in {self.variants} variants" if self.variants > 1 else ""
        return f"{info.name} {info.sha256[:12]}  windows of {window}, step {step}{times}  {self.runtime}"

    def lattice(self, volume: Box) -> WindowLattice:
        """Return the lattice of windows of a volume."""
        return WindowLattice(volume.shape, self.info.window_zyx, self.info.step_zyx, self.info.placement)

    def radius_zyx(self, scan: ScanStatistics) -> Index:
        """Return the reach of a window, out to whole cells, in voxels.

        The context of a box can be smaller, because it ends with the windows that touch the box.
        """
        del scan
        z, y, x = (edge - 1 + SUPPORT_CELL_VOX - 1 for edge in self.info.window_zyx)
        return z, y, x

    def context(self, box: Box, volume: Box, scan: ScanStatistics) -> Box:
        """Return the box of all windows that touch ``box``, out to whole cells, clipped to the volume."""
        del scan
        return read_box(self.lattice(volume), box)

    def probability(
        self, image: NDArray[np.unsignedinteger], outer: Box, core: Box, volume: Box, scan: ScanStatistics
    ) -> NDArray[np.float32]:
        """Compute the surface probability of ``core``; see :class:`~nx47dask.detectors.Detector`.

        Raises
        ------
        ModelError
            This machine lacks the model or its runtime, or the output of the network is not as described.
        """
        settings, level = self.settings, self.settings.support_level
        return blend_windows(
            image,
            outer,
            core,
            self.lattice(volume),
            predictor_for(self.info, self.runtime).run,
            normalise=self.info.normalisation.resolve(scan).__call__,  # mypy takes no named tuple for a callable
            blend=settings.blend,
            values=self.info.values,
            mirrors=self.mirrors,
            rotations=self.rotations,
            batch=self.runtime.batch,
            occupied=None if level is None else occupied_cells(image, outer, level),
            skip=settings.skip,
        )

    def empty_box(self, core: Box, volume: Box, scan: ScanStatistics) -> Box | None:
        """Return ``core`` out to whole cells; None without a support level.

        Empty cells have a probability of 0, whatever lies around them.
        """
        del scan
        return None if self.settings.support_level is None else core.align(SUPPORT_CELL_VOX).clip(volume)

    @property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        """Every combination of the axes along which windows are mirrored."""
        axes = sorted(AXES.index(axis) for axis in self.settings.mirrors)
        return tuple(chosen for n in range(1, len(axes) + 1) for chosen in itertools.combinations(axes, n))

    @property
    def rotations(self) -> tuple[int, ...]:
        """Numbers of quarter turns of the rotated variants."""
        return (1, 2, 3) if self.settings.rotations else ()

    @property
    def variants(self) -> int:
        """Number of variants of a window that the network sees."""
        return len(variants(self.mirrors, self.rotations))

    def record(self) -> dict[str, Any]:
        """Return everything that decides the probability as plain data, for the identity of a plan and the manifest.

        The path of the model is not in it: the hash names its weights.
        """
        model = {key: value for key, value in self.info.to_json().items() if key not in ("path", "mirrors", "notes")}
        settings = {name: getattr(self.settings, name) for name in ("blend", "mirrors", "rotations", "support_level")}
        return {**model, **settings, "engine": self.runtime.to_json()}


def _step(window_zyx: Index, overlap: float) -> Index:
    """Return MONAI's step for an overlap, in voxels."""
    z, y, x = (max(1, int(edge * (1 - overlap))) for edge in window_zyx)
    return z, y, x
