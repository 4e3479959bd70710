"""Validate a submission zip as the competition's scorer reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nx47dask.io import discover
from nx47dask.io.validation import Finding, validate_submission

__all__ = ["Validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """The verdict on a submission zip.

    Attributes
    ----------
    submission : Path
        The zip.
    masks : int
        Number of masks that it should have, one for each volume.
    findings : sequence of Finding
        Errors and warnings.
    """

    submission: Path
    masks: int
    findings: Sequence[Finding]

    @property
    def errors(self) -> int:
        """Number of findings that make the zip invalid."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of findings that the scorer accepts."""
        return len(self.findings) - self.errors

    @property
    def valid(self) -> bool:
        """True when there is no error."""
        return not self.errors

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "zip": str(self.submission),
            "valid": self.valid,
            "masks": self.masks,
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [asdict(finding) for finding in self.findings],
        }


def validate(submission: str | Path, images: str | Path) -> Validation:
    """Check a submission zip against its images as the scorer reads it.

    Parameters
    ----------
    submission : path
        The zip.
    images : path
        Folder of the volumes that it must have masks of, or a single volume.

    Returns
    -------
    Validation
        The verdict; an invalid zip raises nothing, see ``valid`` and ``findings``.

    Raises
    ------
    InputError
        The zip or an image cannot be read.

    Examples
    --------
    Check the zip of a run against its volumes, and against a folder with one volume more:

    >>> import nx47dask
    >>> ids = nx47dask.write_phantom("sample", (24, 32, 32), seed=1, count=2)
    >>> run = nx47dask.run([f"sample/train_images/{ids[0]}.tif"], "first", workflow="v61.1", serial=True)
    >>> nx47dask.validate("first/submission.zip", f"sample/train_images/{ids[0]}.tif").valid
    True
    >>> verdict = nx47dask.validate("first/submission.zip", "sample/train_images")
    >>> verdict.valid, [(finding.code, finding.member) for finding in verdict.findings]
    (False, [('missing-id', '470000002')])
    """
    volumes = discover([images])
    return Validation(Path(submission), len(volumes), validate_submission(Path(submission), volumes))
