"""A model format, a kind of cluster, a preset and a score term are one file and one line of a table each."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import ClassVar, Literal

import numpy as np
import pytest

from nx47dask.cluster import spec as clusters
from nx47dask.cluster.base import SizedSpec, Workers
from nx47dask.cluster.start import open_client
from nx47dask.errors import InputError, ModelError
from nx47dask.files import presets
from nx47dask.kernels.normalisation import Normalisation
from nx47dask.metrics import score, terms
from nx47dask.models.base import FORMATS, ModelInfo, describe_model, load_networks, sources
from nx47dask.workflow import load_workflow

NAME = "tests.unit.new_part"


@pytest.fixture
def module(monkeypatch):
    """The module of a new part."""
    made = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, made)
    return made


def test_a_model_format(module, monkeypatch, tmp_path):
    def describe(path, *, trust, surface):
        normalisation = Normalisation("zscore", "volume")
        return ModelInfo(path, "new", "0" * 64, (8, 8, 8), (4, 4, 4), "flush", 1, 0, "sigmoid", normalisation)

    module.SOURCE = "a .new file"
    module.recognises = lambda path: path.suffix == ".new"
    module.describe = describe
    module.load = lambda info, *, trust: [f"network of {info.name}"]
    monkeypatch.setitem(FORMATS, "new", NAME)
    path = tmp_path / "net.new"
    path.touch()
    info = describe_model(path)
    assert (info.format, load_networks(info)) == ("new", ["network of net"])
    assert sources().endswith("an .onnx file or a .new file")
    with pytest.raises(ModelError, match=r"expected an nnU-Net v2 folder, .* or a \.new file"):
        describe_model(tmp_path)


class BeachSpec(SizedSpec):
    starter: ClassVar[str] = f"{NAME}:start"

    kind: Literal["beach"]
    workers: Workers
    sand: str = "white"

    @property
    def where_to_look(self):
        return "see the sea"


def test_a_kind_of_cluster(module, monkeypatch):
    started = []

    def start(spec, worker_bytes):
        started.append((spec, worker_bytes))
        raise OSError("high tide")

    module.start = start
    monkeypatch.setitem(clusters.KINDS, "beach", BeachSpec)
    environ = {"NX47DASK_CLUSTER_KIND": "beach", "NX47DASK_CLUSTER_WORKERS": "3"}
    spec = clusters.read_cluster(None, environ=environ)
    assert (spec.kind, spec.expected_workers, spec.sand) == ("beach", 3, "white")
    with pytest.raises(InputError, match=r"NX47DASK_CLUSTER_SHELL: .*keys of kind beach: .*sand"):
        clusters.read_cluster(None, environ={**environ, "NX47DASK_CLUSTER_SHELL": "1"})
    with pytest.raises(InputError, match=r"kinds: local, .*beach"):
        clusters.read_cluster(None, environ={"NX47DASK_CLUSTER_KIND": "beech"})
    with (
        pytest.raises(Exception, match=r"kind beach: the cluster did not start \(high tide\); see the sea"),
        open_client(spec, 5),
    ):
        pass
    assert started == [(spec, 5)]


def test_a_preset(monkeypatch, tmp_path):
    (tmp_path / "mine.yaml").write_text("detect: [sheetness]\npostprocess: [threshold]\n")
    monkeypatch.setattr(presets, "_folder", lambda: tmp_path)
    assert presets.preset_names() == ["mine"]
    assert load_workflow("mine").name == "mine"


def test_the_help_names_every_preset():
    from nx47dask.cli.main_job import WorkflowName

    (option,) = WorkflowName.__metadata__
    assert all(name in option.help for name in presets.preset_names())


def test_a_score_term(monkeypatch):
    new = terms.ScoreTerm(0.5, "tunnels", lambda sums: 1 / (1 + sums.counts[1][1]), cheap=False)
    monkeypatch.setitem(terms.TERMS, "tunnels", new)
    mask = np.ones((8, 8, 8), bool)
    found = score.official_score(mask, mask)
    assert found["tunnels"] == 1
    assert found["score"] == pytest.approx(1.5)


def test_the_weights_of_the_terms_sum_to_one():
    assert sum(term.weight for term in terms.TERMS.values()) == pytest.approx(1)
