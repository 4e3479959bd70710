"""Types of the JSON files of comparisons and campaigns: ``compare.json`` and ``campaign.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NotRequired, TypedDict, TypeVar

from nx47dask.runs.baselines import ExternalScores
from nx47dask.runs.differences import ManifestDifference
from nx47dask.runs.gates import GateRecord
from nx47dask.runs.manifest import LabelsRecord
from nx47dask.words import Paired

__all__ = [
    "AboutRun",
    "AgainstBaseline",
    "CampaignRunSummary",
    "CampaignSummary",
    "ComparedDefects",
    "ComparedRun",
    "Comparison",
    "DefectCounts",
    "Extent",
    "GatedComparison",
    "MaskAgreement",
    "MaskDifference",
    "OverallComparison",
    "Sides",
    "SliceAgreement",
    "VolumeComparison",
    "WorstSlice",
]

T = TypeVar("T")


class Sides(TypedDict, Generic[T]):
    """Value of both runs that are compared."""

    baseline: T
    candidate: T


class MaskDifference(TypedDict):
    """Agreement of two masks: Dice, IoU, voxels of the candidate only and of the baseline only."""

    dice: float
    iou: float
    added_vox: int
    removed_vox: int


class MaskAgreement(MaskDifference):
    """Agreement over all volumes: means and sums, and the number of volumes with identical masks."""

    identical_volumes: int


class WorstSlice(TypedDict):
    """Slice in which many voxels differ; z in voxels of the scan."""

    z: int
    dice: float
    differing_vox: int


class SliceAgreement(TypedDict):
    """Dice, and number of differing voxels, of every slice."""

    dice: list[float]
    differing_vox: list[int]


class DefectCounts(TypedDict):
    """Numbers of spurious holes and bridges of a mask."""

    holes: int
    bridges: int


class ComparedDefects(TypedDict, total=False):
    """Spurious holes and bridges of both masks, if both have a score."""

    defects: Sides[DefectCounts]


class VolumeComparison(ComparedDefects):
    """Comparison of a volume of two runs.

    Attributes
    ----------
    shape : list of int
        Of the part that both masks cover (Z, Y, X).
    first_z : int
        z of its first slice in voxels of the scan.
    masks : MaskDifference
    betti : Sides of list of int
        Components, tunnels, cavities.
    measures : Sides of dict of str to float
        As of :func:`~nx47dask.runs.measures.volume_measures`.
    worst_slices : list of WorstSlice
        Most voxels that differ first, at some distance from one another.
    slices : SliceAgreement
    """

    shape: list[int]
    first_z: int
    masks: MaskDifference
    betti: Sides[list[int]]
    measures: Sides[dict[str, float]]
    worst_slices: list[WorstSlice]
    slices: SliceAgreement


class ComparedRun(TypedDict):
    """Run that is compared, from its manifest, with the scores that were recorded from elsewhere."""

    path: str
    workflow: str
    nx47dask: str
    plan_sha256: str
    external: ExternalScores


class OverallComparison(TypedDict):
    """Comparison of two runs over all volumes.

    Attributes
    ----------
    means : Sides of dict of str to float
        By name.
    paired : dict of str to Paired
        Paired differences of the means.
    masks : MaskAgreement
    """

    means: Sides[dict[str, float]]
    paired: dict[str, Paired]
    masks: MaskAgreement


class Comparison(OverallComparison):
    """Comparison of two runs over the same volumes; differences are candidate - baseline.

    Attributes
    ----------
    schema : int
    baseline, candidate : ComparedRun
    labels : dict of str to LabelsRecord
        Labels that the scores are against, by volume; empty without scores.
    notes : list of str
        What a reader of the numbers should know.
    volumes : dict of str to VolumeComparison
    differences : dict of str to list of ManifestDifference
        What the runs were made with, by section of the manifest.
    """

    schema: int
    baseline: ComparedRun
    candidate: ComparedRun
    labels: Mapping[str, LabelsRecord]
    notes: list[str]
    volumes: dict[str, VolumeComparison]
    differences: dict[str, list[ManifestDifference]]


class GatedComparison(Comparison):
    """Contents of ``compare.json``: a comparison and its checked gates, if any."""

    gates: Sequence[GateRecord]


class AboutRun(TypedDict):
    """Origin of a run of a campaign.

    Attributes
    ----------
    workflow, nx47dask, plan_sha256 : str
        As its manifest says.
    external : ExternalScores
    set : list of str, optional
        Overrides of the campaign file; not of a baseline that is none of its runs.
    repeats : list of list of str, optional
        For each repeat the volumes whose masks differ from the first time.
    """

    workflow: str
    nx47dask: str
    plan_sha256: str
    external: ExternalScores
    set: NotRequired[list[str]]
    repeats: NotRequired[list[list[str]]]


class AgainstBaseline(TypedDict, total=False):
    """Comparison of a run with the baseline of its campaign; empty for the baseline itself.

    Attributes
    ----------
    difference : dict of str to Paired
        Of each measure, paired over the volumes.
    gates : list of GateRecord
    """

    difference: dict[str, Paired]
    gates: list[GateRecord]


class CampaignRunSummary(AboutRun, AgainstBaseline):
    """Summary of a run of a campaign: ``mean`` of each measure, and in ``volumes`` the measures by volume."""

    mean: dict[str, float]
    volumes: dict[str, dict[str, float]]


class Extent(TypedDict):
    """Smallest and largest value of a measure with their runs, range, and population standard deviation."""

    min: float
    min_run: str
    max: float
    max_run: str
    range: float
    std: float


class CampaignSummary(TypedDict):
    """Contents of ``campaign.json``.

    Attributes
    ----------
    baseline : str
        Name of a run.
    runs : dict of str to CampaignRunSummary
    spread : dict of str to dict of str to Extent
        Between the runs, by volume and measure; empty for a single run.
    """

    baseline: str
    runs: dict[str, CampaignRunSummary]
    spread: dict[str, dict[str, Extent]]
