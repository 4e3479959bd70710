"""SLURM, PBS and LSF: the scripts of the jobs, and runs through stand-ins of the batch systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nx47dask.cluster.dask_pool import DaskPool
from nx47dask.cluster.kinds import jobqueue
from nx47dask.cluster.spec import Bounds, JobQueueSpec
from nx47dask.cluster.start import open_client
from nx47dask.engine import execute
from nx47dask.errors import ClusterError
from tests.cluster.processes import arguments
from tests.cluster.test_local import pipeline
from tests.integration.commands import command, digests

dask_jobqueue = pytest.importorskip("dask_jobqueue")
from dask_jobqueue.local import LocalCluster, LocalJob  # noqa: E402

ENVIRONMENT = """\
export OMP_NUM_THREADS=1
export MKL_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export MALLOC_MMAP_MAX_=0
export MALLOC_TRIM_THRESHOLD_=268435456
export MALLOC_ARENA_MAX=1
export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False
export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False
export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False
export DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE=0.95
export DASK_TEMPORARY_DIRECTORY='/scratch/of me'
module load cuda
"""
WORKER = "/env/bin/python -m distributed.cli.dask_worker tcp://10.0.0.1:8786 --name w"


def spec(kind, **values):
    given = {
        "workers": 8, "cores": 4, "memory": "32GiB", "queue": "cpu", "account": "scrolls", "walltime": "04:00",
        "gpu_workers": 2, "gpu_queue": "gpu", "gpu_memory": "16GiB", "python": "/env/bin/python",
        "job_script_prologue": ["module load cuda"], "dask": {"temporary-directory": "/scratch/of me"},
    }  # fmt: skip
    return JobQueueSpec(kind=kind, **{**given, **values})


def scripts(given):
    """Scripts of a job with CPU workers and of one with a GPU."""
    kind = getattr(dask_jobqueue, jobqueue._CLUSTERS[given.kind]).job_cls
    cpu = jobqueue._cpu_job(given)
    return [
        kind("tcp://10.0.0.1:8786", name="w", **job).job_script() for job in (cpu, {**cpu, **jobqueue._gpu_job(given)})
    ]


def test_slurm_scripts():
    cpu, gpu = scripts(spec("slurm"))
    assert cpu == (
        "#!/usr/bin/env bash\n\n"
        "#SBATCH -J dask-worker\n#SBATCH -p cpu\n#SBATCH -A scrolls\n#SBATCH -n 1\n#SBATCH --cpus-per-task=4\n"
        f"#SBATCH --mem=32G\n#SBATCH -t 04:00\n{ENVIRONMENT}"
        f"{WORKER} --nthreads 1 --memory-limit 8.00GiB --nworkers 4 --nanny --death-timeout 60 --resources CPU=1\n"
    )
    assert gpu == (
        "#!/usr/bin/env bash\n\n"
        "#SBATCH -J dask-worker\n#SBATCH -p gpu\n#SBATCH -A scrolls\n#SBATCH -n 1\n#SBATCH --cpus-per-task=1\n"
        f"#SBATCH --mem=16G\n#SBATCH -t 04:00\n#SBATCH --gres=gpu:1\n{ENVIRONMENT}"
        f"{WORKER} --nthreads 1 --memory-limit 16.00GiB --nanny --death-timeout 60 --resources GPU=1\n"
    )


def test_pbs_and_lsf_directives():
    cpu, gpu = scripts(spec("pbs"))
    assert "#PBS -l select=1:ncpus=4:mem=32GB\n" in cpu
    assert [line for line in gpu.splitlines() if "select=" in line] == ["#PBS -l select=1:ncpus=1:ngpus=1:mem=16384MB"]
    assert "#PBS -q gpu\n" in gpu
    assert "--resources GPU=1" in gpu
    cpu, gpu = scripts(spec("lsf"))
    assert '#BSUB -P "scrolls"\n' in cpu
    assert "#BSUB -gpu" not in cpu
    assert '#BSUB -gpu "num=1"\n' in gpu


def test_directives_of_the_user():
    _, gpu = scripts(spec("slurm", gpu_directives=["--gpus=h100:1"], job_extra_directives=["--exclusive"]))
    assert "#SBATCH --exclusive\n#SBATCH --gpus=h100:1\n" in gpu
    assert "--gres" not in gpu
    _, gpu = scripts(spec("pbs", gpu_directives=["-l ngpus=1"]))
    assert "#PBS -l ngpus=1\n" in gpu
    assert "select=1:ncpus=1:mem=16GB" in gpu


def test_no_resources_without_gpu_workers():
    cpu, _ = scripts(spec("slurm", gpu_workers=0))
    assert "--resources" not in cpu, "Dask queues tasks that ask for none on the scheduler"


SBATCH = """#!/usr/bin/env bash
script=$(mktemp -p {folder} job-XXXXXX.sh)
cp "$1" "$script"
setsid bash "$script" > "$script.log" 2>&1 &
echo "Submitted batch job $!"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """``sbatch`` and ``scancel`` that run jobs on this machine, at once."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {
        "sbatch": SBATCH.format(folder=folder),
        "scancel": "#!/usr/bin/env bash\nkill -TERM -- -$1\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_both_pools_in_jobs(slurm, certificate, tmp_path):
    own = {"cert": str(certificate["cert"]), "key": str(certificate["key"])}
    tls = {"ca-file": own["cert"], "scheduler": own, "worker": own, "client": own}
    given = JobQueueSpec(
        kind="slurm", workers=1, memory="1GiB", gpu_workers=1, interface="lo", local_directory=str(tmp_path),
        job_script_prologue=["export CUDA_VISIBLE_DEVICES=7"],
        dask={"distributed.comm": {"default-scheme": "tls", "require-encryption": True, "tls": tls}},
    )  # fmt: skip
    with open_client(given) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        results, errors = execute({"gpu": pipeline(4, {"GPU": 1.0}), "cpu": pipeline(4)}, DaskPool(client))
    assert not errors
    assert {(record["on"], record["gpus"]) for record in results["gpu"].values()} == {("gpu-0", "7")}
    assert {record["on"] for record in results["cpu"].values()} == {"cpu-0"}
    assert len(list(slurm.glob("job-*.sh"))) == 2


class ShellJob(LocalJob):
    """As dask-jobqueue's local job, which takes its script for one command; a shell reads it."""

    async def _submit_job(self, script_filename):
        one_command = Path(f"{script_filename}.command")
        one_command.write_text(f"bash {script_filename}")
        return await super()._submit_job(str(one_command))


class ShellCluster(LocalCluster):
    job_cls = ShellJob


def test_run_through_the_local_job_class(scan, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", ShellCluster)
    (tmp_path / "cluster.yaml").write_text("{kind: slurm, memory: 1GiB, interface: lo, workers: 1}")
    options = ("--block", 40, "--cluster", tmp_path / "cluster.yaml")
    assert command(*arguments(scan, tmp_path / "run", *options)) == 0
    assert capsys.readouterr().err.startswith("dashboard http://127.0.0.1:")
    assert digests(tmp_path / "run") == expected


def test_bounds_go_to_adapt(monkeypatch):
    seen = {}

    class Cluster:
        job_cls, new_spec, _correct_state = None, {}, None

        def __init__(self, **options):
            self.worker_spec = {}
            seen.update(options)

        def sync(self, function):
            seen["jobs"] = list(self.worker_spec)

        def adapt(self, **bounds):
            seen.update(bounds)

    monkeypatch.setattr(dask_jobqueue, "PBSCluster", Cluster)
    jobqueue.start(spec("pbs", workers=Bounds(minimum=2, maximum=40), gpu_workers=0))
    assert (seen["minimum"], seen["maximum"]) == (2, 40)
    assert seen["jobs"] == ["cpu-0"], "two workers fit into one job of four"
    assert seen["scheduler_options"]["dashboard_address"].startswith("127.0.0.1:")


def test_refused_job_is_told(slurm):
    (slurm / "sbatch").write_text("#!/usr/bin/env bash\necho 'sbatch: error: Invalid account' >&2\nexit 1\n")
    given = JobQueueSpec(kind="slurm", workers=2, memory="1GiB", interface="lo")
    with pytest.raises(ClusterError, match=r"took no job: .* Invalid account"), open_client(given):
        pass
