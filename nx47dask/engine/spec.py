"""Which cluster to use: ``cluster.yaml``, ``--cluster`` and ``--workers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nx47dask.errors import InputError

__all__ = ["ClusterSpec", "read_cluster"]


class ClusterSpec(BaseModel):
    """Which cluster to use; the keys of ``cluster.yaml``."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["local", "connect"] = "local"
    workers: int | None = Field(default=None, ge=1)
    """Worker processes of a local cluster, one thread each; None: one per CPU."""
    memory_limit: str = "auto"
    """Memory limit of a local worker, such as ``8GiB``."""
    address: str | None = None
    """Address of a running scheduler, such as ``tcp://host:8786``."""
    scheduler_file: str | None = None
    dask: dict[str, Any] = {}
    """Goes to the Dask configuration as it is, for this run only."""

    @field_validator("memory_limit")
    @classmethod
    def _has_a_unit(cls, value: str) -> str:
        if value != "auto":
            from dask.utils import parse_bytes

            parse_bytes(value)
        return value


def read_cluster(source: str | None, workers: int | None = None) -> ClusterSpec:
    """Resolve ``--cluster`` and ``--workers``.

    Parameters
    ----------
    source : str or None
        A YAML file, ``tcp://HOST:PORT``, a scheduler file (.json), or None: ``cluster.yaml`` here if there is one,
        else a local cluster.
    workers : int or None
        Workers of a local cluster.

    Raises
    ------
    InputError
        The file is missing or holds an unknown key or value.
    """
    if source is None:
        source = "cluster.yaml" if Path("cluster.yaml").is_file() else None
    if source is None:
        spec = ClusterSpec()
    elif "://" in source:
        spec = ClusterSpec(kind="connect", address=source)
    elif not Path(source).is_file():
        raise InputError(f"--cluster {source}: no such file; give a YAML file, tcp://HOST:PORT or a scheduler file")
    elif source.endswith(".json"):
        spec = ClusterSpec(kind="connect", scheduler_file=source)
    else:
        spec = _read_file(source)
    if workers is None:
        return spec
    if spec.kind != "local":
        raise InputError(f"--workers {workers}: only a local cluster is sized here, not kind {spec.kind!r}")
    return spec.model_copy(update={"workers": workers})


def _read_file(path: str) -> ClusterSpec:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        if not isinstance(values, dict):
            raise InputError(f"{path}: expected keys ({', '.join(ClusterSpec.model_fields)}), found {values!r}")
        return ClusterSpec.model_validate(values)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not a YAML file: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        allowed = ", ".join(ClusterSpec.model_fields)
        raise InputError(f"{path}: {key}: {first['msg']} (found {first['input']!r}); keys: {allowed}") from None
