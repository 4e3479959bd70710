"""Which cluster a run goes to: the file, the environment, the command line, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import dask
import pytest
import yaml

from nx47dask.cluster.settings import WORKER_ENVIRONMENT, dask_settings, environment_of, exported
from nx47dask.cluster.spec import (
    NO_WORKER_TIMEOUT_S,
    Bounds,
    ConnectSpec,
    CudaSpec,
    JobQueueSpec,
    KubernetesSpec,
    LocalSpec,
    read_cluster,
)
from nx47dask.errors import InputError


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Resolve the values of a cluster.yaml in the current folder, an environment and a command line."""
    monkeypatch.chdir(tmp_path)

    def resolve(file=None, environ=None, source=None, workers=None):
        if file is not None:
            (tmp_path / "cluster.yaml").write_text(file if isinstance(file, str) else yaml.safe_dump(file))
        return read_cluster(source, workers, environ or {})

    return resolve


def test_defaults_then_file_then_environment_then_command_line(read):
    assert read() == LocalSpec()
    file = {"workers": 2, "memory_limit": "1GiB"}
    assert read(file) == LocalSpec(workers=2, memory_limit="1GiB")
    environ = {"NX47DASK_CLUSTER_WORKERS": "3", "NX47DASK_OUT": "elsewhere", "NX47DASK_VENV": "venv"}
    assert read(file, environ) == LocalSpec(workers=3, memory_limit="1GiB")
    assert read(file, environ, workers=4) == LocalSpec(workers=4, memory_limit="1GiB")


def test_environment_names_the_cluster(read, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("{kind: slurm, workers: 4, memory: 8GiB}")
    environ = {"NX47DASK_CLUSTER": str(other), "NX47DASK_CLUSTER_WORKERS": "{minimum: 1, maximum: 9}"}
    assert read("workers: 2", environ) == JobQueueSpec(
        kind="slurm", workers=Bounds(minimum=1, maximum=9), memory="8GiB"
    )
    assert read("workers: 2", {"NX47DASK_CLUSTER": "tls://host:1"}) == ConnectSpec(
        kind="connect", address="tls://host:1"
    )
    given = read(None, {"NX47DASK_CLUSTER": str(other), "NX47DASK_CLUSTER_ADDRESS": "tcp://b:1"}, source="tcp://a:1")
    assert given.address == "tcp://a:1", "the command line wins"


@pytest.mark.parametrize(
    ("file", "environ", "words"),
    [
        ("workes: 2", {}, ["cluster.yaml", "workes", "memory_limit"]),
        ("", {"NX47DASK_CLUSTER_WORKES": "2"}, ["NX47DASK_CLUSTER_WORKES", "memory_limit"]),
        ("", {"NX47DASK_CLUSTER_MEMORY_LIMIT": "lots"}, ["NX47DASK_CLUSTER_MEMORY_LIMIT", "'lots'"]),
        ("kind: [slurm]", {}, ["kind", "slurm", "kubernetes"]),
        ("kind: sge", {}, ["'sge'", "slurm", "pbs", "lsf"]),
        ("", {"NX47DASK_CLUSTER_KIND": "sge"}, ["NX47DASK_CLUSTER_KIND", "'sge'"]),
        ("workers: 0", {}, ["workers"]),
        ("workers: {minimum: 4, maximum: 2}", {}, ["workers", "maximum 2", "minimum 4"]),
        ("workers: {minimum: 4, most: 5}", {}, ["workers.maximum", "required"]),
        ("{kind: cuda, workers: {minimum: 1, maximum: 2}}", {}, ["two", "gpu_workers"]),
        ("{kind: slurm, workers: {minimum: 1, maximum: 2}, gpu_workers: 1, memory: 1GiB}", {}, ["two", "gpu_workers"]),
        ("{kind: slurm, workers: 2}", {}, ["memory", "required"]),
        ("{kind: slurm, workers: 2, memory: 1GiB, walltime: 12:00:00}", {}, ["walltime", "quotes"]),
        ("{kind: kubernetes, workers: 2}", {}, ["image", "required"]),
        ("{kind: connect, address: 'tcp://a:1', tls_cert: c.pem}", {}, ["tls_ca_file", "tls_key"]),
        ("{kind: connect, address: 'tcp://a:1', scheduler_file: s.json}", {}, ["either"]),
        ("- kind", {}, ["expected keys"]),
    ],
)
def test_what_is_wrong_is_said(read, file, environ, words):
    with pytest.raises(InputError) as error:
        read(file, environ)
    for word in words:
        assert word in str(error.value)


ROOT = Path(__file__).resolve().parents[2]


def documented():
    """Every cluster of the repository's cluster.yaml, commented or not, and of the documentation."""
    text = (ROOT / "cluster.yaml").read_text()
    yield yaml.safe_load(text)
    for block in text.split("\n\n"):
        lines = [line.removeprefix("#").removeprefix(" ") for line in block.splitlines()]
        if "" in lines:
            yield yaml.safe_load("\n".join(lines[lines.index("") :]))
    for page in (ROOT / "docs" / "clusters.md", ROOT / "README.md"):
        blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        yield from (yaml.safe_load(block) for block in blocks if "kind:" in block)


def test_documented_clusters_are_valid(read):
    seen = {read(values).kind for values in documented()}
    assert seen == {"local", "cuda", "slurm", "pbs", "lsf", "kubernetes", "connect"}


def test_documentation_names_every_key():
    text = (ROOT / "docs" / "clusters.md").read_text()
    models = (LocalSpec, CudaSpec, JobQueueSpec, KubernetesSpec, ConnectSpec)
    assert {key for model in models for key in model.model_fields if f"`{key}`" not in text} == set()
    assert [name for name in WORKER_ENVIRONMENT if name not in text] == []
    assert f"{NO_WORKER_TIMEOUT_S:g} for local" in text


def test_pools_and_expected_workers():
    queue = {"kind": "slurm", "memory": "8GiB"}
    pods = {"kind": "kubernetes", "image": "image"}
    assert LocalSpec(workers=3).pools == ()
    assert JobQueueSpec(**queue, workers=3).pools == KubernetesSpec(**pods, workers=3).pools == ()
    assert JobQueueSpec(**queue, workers=0, gpu_workers=2).pools == ("GPU",)
    assert CudaSpec(kind="cuda").pools == KubernetesSpec(**pods, workers=1, gpu_workers=1).pools == ("CPU", "GPU")
    assert JobQueueSpec(**queue, workers=9, cores=4, gpu_workers=2).expected_workers == 14, "three jobs of four"
    assert LocalSpec(workers=Bounds(minimum=2, maximum=5)).expected_workers == 2


def test_settings_travel_as_environment_variables():
    own = {
        "distributed": {"worker": {"memory": {"terminate": 0.8}}},
        "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 2},
        "distributed.worker.preload": ["mine.py"],
        "temporary-directory": "/scratch/a b",
    }
    settings = dask_settings(own)
    assert environment_of(settings)["OMP_NUM_THREADS"] == "2"
    variables = exported(settings)
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["MKL_NUM_THREADS"] == "1"
    there = dask.config.collect_env({**variables, "OTHER": "1"})
    assert dask.config.get("distributed.worker.memory", config=there) == {
        "target": False,
        "spill": False,
        "pause": False,
        "terminate": 0.8,
    }
    assert dask.config.get("distributed.worker.preload", config=there) == ["mine.py"]
    assert dask.config.get("distributed.scheduler.allowed-failures", config=there) == 1
    assert dask.config.get("temporary-directory", config=there) == "/scratch/a b"
