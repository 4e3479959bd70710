"""The public names: those of the command line, documented, loaded when used; and where work runs as one value."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys

import pytest
import yaml
from rich.console import Console

import nx47dask
from nx47dask.cluster.spec import CudaSpec, JobQueueSpec, LocalSpec
from nx47dask.cluster.where import WhereOptions
from nx47dask.errors import InputError
from tests.unit.test_house import NAMES

PLACED = ("run", "plan", "ingest", "score", "calibrate", "compare", "campaign")
"""Commands that run tasks somewhere."""
COMMANDS = (*PLACED, "freeze", "verify", "validate", "report")
SLURM = {"kind": "slurm", "workers": 2, "memory": "8GiB", "gpu_workers": 1}


@pytest.mark.parametrize("name", nx47dask.__all__)
def test_a_public_name_is_documented_and_no_module(name):
    value = getattr(nx47dask, name)
    assert f"nx47dask.{name}" not in NAMES, "importing the module would hide what is public"
    assert callable(value)
    text = inspect.getdoc(value)
    if inspect.isfunction(value):
        assert "Parameters\n----------" in text or not inspect.signature(value).parameters
        assert value.__name__ in (name, {"calibrate_workflow": "calibrate", "score_volumes": "score"}.get(name))


def test_python_has_the_commands_of_the_command_line():
    assert set(COMMANDS) <= set(nx47dask.__all__)
    for name in COMMANDS:
        assert getattr(nx47dask, name).__module__.rpartition(".")[2] == name


@pytest.mark.parametrize("name", PLACED)
def test_commands_take_where_they_run_in_one_way(name):
    parameters = inspect.signature(getattr(nx47dask, name), eval_str=True).parameters
    assert {"where", "options"} <= parameters.keys()
    assert not parameters.keys() & WhereOptions.__annotations__.keys()


def test_importing_the_package_loads_nothing():
    code = "import sys, nx47dask; print(sorted({'numpy', 'dask', 'pydantic', 'rich'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def slurm(tmp_path):
    """The file of a cluster with workers for GPUs."""
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump(SLURM))
    return str(path)


def test_where_of_the_options_of_a_command(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nx47dask.Where.of().cluster == LocalSpec()
    assert nx47dask.Where.of(workers=3).cluster == LocalSpec(workers=3)
    assert nx47dask.Where.of(cluster=slurm).cluster == JobQueueSpec(**SLURM)
    serial = nx47dask.Where.of(serial=True, cluster=slurm)
    assert serial.serial
    assert serial.cluster is None
    assert nx47dask.Where.of(serial) is serial
    for beside in ({"serial": True}, {"workers": 1}, {"cluster": slurm}, {"console": Console()}):
        with pytest.raises(InputError, match=r"give them to Where\.of"):
            nx47dask.Where.of(serial, **beside)


def test_where_says_what_device_auto_means(slurm):
    assert nx47dask.Where.of(cluster=slurm).device == "cuda"
    assert nx47dask.Where(CudaSpec(kind="cuda")).device == "cuda"
    assert nx47dask.Where(LocalSpec()).device is nx47dask.Where(None).device is None


def test_only_a_local_place_gets_workers_for_its_gpus(slurm):
    console = Console()
    local, remote = nx47dask.Where(LocalSpec(workers=3), console), nx47dask.Where.of(cluster=slurm)
    assert local.for_gpus() == nx47dask.Where(CudaSpec(kind="cuda", workers=3), console)
    assert remote.for_gpus() is remote
    assert nx47dask.Where(None).for_gpus().serial


def test_a_place_opens_its_pool_and_says_so():
    said = io.StringIO()
    with nx47dask.Where.of(serial=True, console=Console(file=said)).open_pool() as pool:
        assert pool.memory_limit_bytes is None
    assert "serial: no cluster" in said.getvalue()
