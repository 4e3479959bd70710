"""Post-processing steps, one file each; the name in :data:`STEPS` is the key in a workflow file."""

from nx47dask.steps.base import Binarise, ComponentStep, LocalStep, Step
from nx47dask.steps.border import ClearBorder
from nx47dask.steps.coherence import ZCoherence
from nx47dask.steps.holes import PatchHoles
from nx47dask.steps.morphology import Closing, Opening
from nx47dask.steps.objects import FillHoles, SmallObjects
from nx47dask.steps.pinholes import PlugPinholes
from nx47dask.steps.smooth import Smooth, SmoothSheet
from nx47dask.steps.support import Support
from nx47dask.steps.thinning import Thicken, Thin
from nx47dask.steps.thresholds import Hysteresis, KeepStrong, Threshold

STEPS: dict[str, type[Step]] = {
    "support": Support,
    "smooth": Smooth,
    "smooth_sheet": SmoothSheet,
    "threshold": Threshold,
    "hysteresis": Hysteresis,
    "clear_border": ClearBorder,
    "small_objects": SmallObjects,
    "fill_holes": FillHoles,
    "z_coherence": ZCoherence,
    "closing": Closing,
    "opening": Opening,
    "plug_pinholes": PlugPinholes,
    "patch_holes": PatchHoles,
    "thin": Thin,
    "thicken": Thicken,
}

__all__ = ["STEPS", "Binarise", "ComponentStep", "KeepStrong", "LocalStep", "Step"]
