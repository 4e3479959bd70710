"""Write the files of a calibration: workflow, thresholds by volume, table of trials, page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import yaml

from nx47dask.calibration.methods.space import variant
from nx47dask.calibration.plan import Calibration
from nx47dask.errors import InputError
from nx47dask.files.atomic import replace_file, write_text
from nx47dask.reports.calibration.document import CalibrationRecord, DimensionRecord
from nx47dask.reports.calibration.page import trial_rows, write_calibration
from nx47dask.version import __version__

__all__ = ["BEST", "write_results"]

BEST, REFUSED = "best", "candidate"


def write_results(planned: Calibration, findings: CalibrationRecord) -> None:
    """Add to the findings how they were made, and write all files; the same findings give the same bytes.

    A promoted workflow is written to ``best.yaml``, a refused one to ``candidate.yaml``.

    Raises
    ------
    StorageError
        A file cannot be written.
    """
    findings |= {
        "name": planned.base.name,
        "command": planned.command,
        "nx47dask": __version__,
        "seed": planned.seed,
        "method": planned.method,
        "volumes": [
            {"id": name, "scroll": planned.scrolls.get(name), "shape": list(volume.shape)}
            for name, volume in planned.volumes.items()
        ],
        "space": {
            key: cast("DimensionRecord", asdict(dimension)) for key, dimension in planned.space.dimensions.items()
        },
    }
    wanted, other = (BEST, REFUSED) if findings["promoted"] else (REFUSED, BEST)
    (planned.out / f"{other}.yaml").unlink(missing_ok=True)
    write_text(planned.out / f"{wanted}.yaml", _workflow_text(planned, findings))
    write_text(planned.out / "per_volume.yaml", _per_volume_text(findings))
    _write_parquet(trial_rows(findings), planned.out / "trials.parquet")
    write_calibration(findings, planned.out)


def _workflow_text(planned: Calibration, findings: CalibrationRecord) -> str:
    """Return the workflow of the best candidate as YAML; a comment tells how it was found."""
    verdict = findings["verdicts"]["baseline"]
    held_out = "no held-out estimate"
    mean, interval = verdict["held_out_mean"], verdict["held_out_interval"]
    if mean is not None and interval is not None:
        low, high = interval
        held_out = f"held-out score {mean:.3f} [{low:.3f}, {high:.3f}]"
    outcome = "promoted" if findings["promoted"] else "refused: " + "; ".join(findings["reasons"])
    data = variant(planned.base.resolved, findings["workflows"]["best"]["candidate"])
    head = f"# {planned.command}\n# {held_out} over {len(planned.volumes)} volumes, {outcome}\n"
    return head + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)


def _per_volume_text(findings: CalibrationRecord) -> str:
    """Return for each volume the threshold that scores best on it, and the one for all volumes."""
    volumes = {}
    for name, tradeoff in findings["tradeoff"].items():
        scored = [(score, point) for point in tradeoff["curve"] if (score := point["score"]) is not None]
        volumes[name] = {
            "threshold": findings["threshold_key"],
            "best": max(scored, key=lambda pair: pair[0])[1] if scored else None,
            "all_volumes": tradeoff["operating"],
        }
    return yaml.safe_dump(volumes, sort_keys=False, width=120)


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a table of the trials; a value that a trial lacks is None."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f'{path}: {error.name} is not installed: pip install "nx47dask[calibrate]"') from error
    with replace_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
