"""Identify the plan that a folder of results belongs to; its identity is written before the first task."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nx47dask.errors import InputError, PlanMismatchError
from nx47dask.files.atomic import write_text
from nx47dask.runs.differences import find_differences

__all__ = ["FolderPlan"]


@dataclass(frozen=True)
class FolderPlan(ABC):
    """A plan to which a folder of results belongs.

    Attributes
    ----------
    out : Path
        The folder.
    """

    out: Path

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that decides the results, as JSON values; a folder belongs to one identity."""

    @property
    def record(self) -> Path:
        """File of the folder that holds the identity of its plan."""
        return self.out / "ledger" / "plan.json"

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def claim(self) -> None:
        """Write the identity into a run folder that passed :meth:`check`."""
        if not self.record.exists():
            write_text(self.record, json.dumps(self.identity, indent=1) + "\n")

    def check(self, resume: bool) -> None:
        """Refuse a run folder that this plan cannot take.

        Raises
        ------
        PlanMismatchError
            The folder holds the work of another plan; the message names what differs.
        InputError
            The folder holds a run and ``resume`` is not set, or what an interrupted ``overwrite`` left of one.
        """
        if not self.record.exists():
            if any(self.record.parent.glob("*")):
                raise InputError(
                    f"{self.out}: the folder holds the rest of a run without its plan", hint="use --overwrite"
                )
            return
        before = json.loads(self.record.read_text(encoding="utf-8"))
        differences = find_differences(before, json.loads(json.dumps(self.identity)))
        # An algorithm that only one of the plans has follows from the workflow, which differs as well.
        differences = [each for each in differences if not (each.path.startswith("revisions.") and None in each.values)]
        if differences:
            shown = "; ".join(map(str, differences[:5])) + (
                f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
            )
            raise PlanMismatchError(
                f"{self.out}: the folder holds a run of another plan: {shown}",
                hint="use --overwrite to start anew, or another --out",
            )
        if not resume:
            raise InputError(
                f"{self.out}: the folder holds a run", hint="use --resume to go on or --overwrite to start anew"
            )
