"""Kubernetes: what the Dask operator is asked for."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import pytest

from nx47dask.cluster.spec import Bounds, KubernetesSpec

KIND = "nx47dask.cluster.kinds.kubernetes"
MEMORY = {"limits": {"memory": "8Gi"}, "requests": {"cpu": 1}}


class StandIn:
    """Remembers what it is asked for."""

    def __init__(self, **options):
        self.options, self.group, self.bounds = options, None, None

    def add_worker_group(self, **options):
        self.group = options

    def adapt(self, minimum, maximum):
        self.bounds = (minimum, maximum)


def module(name, **content):
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


@pytest.fixture
def start(monkeypatch):
    """The function that starts a cluster, with a stand-in for the packages that talk to Kubernetes."""
    names = ("APITimeoutError", "ConnectionClosedError", "NotFoundError", "ServerError", "SchedulerStartupError")
    errors = {name: type(name, (Exception,), {}) for name in names}
    for made in (
        module("kr8s", api=lambda: SimpleNamespace(version=dict), **errors),
        module("httpx", HTTPError=type("HTTPError", (Exception,), {})),
        module("dask_kubernetes"),
        module("dask_kubernetes.operator", KubeCluster=StandIn),
        module("dask_kubernetes.exceptions", **errors),
    ):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setitem(sys.modules, KIND, module(KIND))  # so that it is as it was afterwards
    del sys.modules[KIND]
    return import_module(KIND).start


SECRET = {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "id"}}}
BOTH = KubernetesSpec(
    kind="kubernetes", image="repo/nx47dask:1", namespace="scrolls", workers=20, gpu_workers=4, resources=MEMORY,
    gpu_resources={"limits": {"memory": "32Gi"}}, env=[SECRET], dask={"distributed.comm.timeouts.connect": "60s"},
)  # fmt: skip


def test_both_pools(start):
    made = start(BOTH)
    assert (made.options["image"], made.options["namespace"]) == ("repo/nx47dask:1", "scrolls")
    assert "name" not in made.options, "the operator's own"
    assert made.options["n_workers"] == 20
    assert made.options["resources"] == MEMORY
    command = "dask worker --nthreads 1 --memory-limit 8Gi --resources CPU=1"
    assert made.options["worker_command"] == command.split()
    variables = {one["name"]: one.get("value") for one in made.options["env"]}
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "1", "the scheduler runs there"
    assert variables["DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"] == "60s"
    assert made.options["env"][-1] == SECRET
    command = "dask worker --nthreads 1 --memory-limit 32Gi --resources GPU=1"
    assert made.group == {
        "name": "gpu",
        "n_workers": 4,
        "resources": {"limits": {"memory": "32Gi", "nvidia.com/gpu": 1}, "requests": {"cpu": 1}},
        "worker_command": command.split(),
    }


def test_bounds(start):
    made = start(KubernetesSpec(kind="kubernetes", image="i", workers=Bounds(minimum=2, maximum=40)))
    assert made.options["n_workers"] == 2
    assert made.bounds == (2, 40)
    assert made.group is None
    assert made.options["worker_command"] == ["dask", "worker", "--nthreads", "1"]


def test_the_package_takes_what_it_is_given(start):
    made = start(BOTH)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] in ("dask_kubernetes", "kr8s", "httpx")]:
            patch.delitem(sys.modules, name)
        operator = pytest.importorskip("dask_kubernetes.operator")
    inspect.signature(operator.KubeCluster).bind(**made.options)
    inspect.signature(operator.KubeCluster.add_worker_group).bind(None, **made.group)
    inspect.signature(operator.KubeCluster.adapt).bind(None, minimum=2, maximum=40)
