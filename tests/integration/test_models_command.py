"""The commands about trained networks, as a user meets them."""

from __future__ import annotations

import json
import pickle

import pytest

from nx47dask.models.backends import runtimes_here
from tests.integration.commands import command
from tests.unit.test_backends import onnx_model, torch_model

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
pytest.importorskip("onnxruntime")  # its models need no torch, so their processes start fast


def test_one_window_through_every_engine(tmp_path, capfd):
    info = onnx_model(tmp_path)
    assert command("models", "check", info.path, "--device", "cpu", "--json", tmp_path / "check.json") == 0
    printed, logged = capfd.readouterr()
    assert not logged
    for words in (info.sha256, "windows of 16x12x20 voxels", "2 classes, surface is 1, activation softmax", "zscore"):
        assert words in printed
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["model"]["sha256"] == info.sha256
    runtimes = [runtime for runtime in runtimes_here(info) if runtime.device == "cpu"]
    assert [record["engine"]["backend"] for record in found["engines"]] == [runtime.backend for runtime in runtimes]
    for record in found["engines"]:
        if "failure" in record:
            assert record["engine"]["precision"] == "bfloat16"
            assert f"not run: {record['failure']}" in printed
            continue
        assert record["repeatable"]
        assert record["largest_difference"] < 0.05
        assert record["window_s"] <= record["open_s"]
        assert 10 << 20 < record["peak_bytes"] < 2 << 30
        assert 0 <= record["least"] < record["most"] <= 1


def test_json_on_standard_output_stands_alone(tmp_path, capfd):
    path = onnx_model(tmp_path).path
    assert command("models", "check", path, "--device", "cpu", "--precision", "float32", "--json", "-") == 0
    assert {record["engine"]["precision"] for record in json.loads(capfd.readouterr().out)["engines"]} == {"float32"}


def test_models_that_do_not_work_are_errors(tmp_path, capfd):
    info = onnx_model(tmp_path)
    sidecar = info.path.with_suffix(".yaml")
    sidecar.write_text(sidecar.read_text().replace("classes: 2", "classes: 3"))
    assert command("models", "check", info.path, "--precision", "float32") == 2
    assert "returns (1, 2, 16, 12, 20); expected (1, 3, 16, 12, 20)" in capfd.readouterr().err

    assert command("models", "check", tmp_path / "absent.pt2") == 2
    assert "absent.pt2: no such model" in capfd.readouterr().err

    pickled = tmp_path / "net.pth"
    pickled.write_bytes(pickle.dumps({}))
    assert command("models", "check", pickled) == 2
    assert "a pickle, which runs code when it is loaded" in capfd.readouterr().err


def test_a_precision_that_nothing_has_is_an_error(tmp_path, capfd):
    path = onnx_model(tmp_path).path
    assert command("models", "check", path, "--device", "cpu", "--precision", "float16") == 2
    assert "nothing runs it with device cpu" in capfd.readouterr().err


def test_the_list_names_the_model_of_the_package_and_what_runs_it(tmp_path, capfd, monkeypatch):
    info = torch_model(tmp_path)
    monkeypatch.setattr("nx47dask.models.base.default_model_path", lambda: info.path)
    assert command("models", "list") == 0
    printed = capfd.readouterr().out
    assert f"sha256 {info.sha256[:12]}" in printed
    for runtime in runtimes_here(info):
        assert f"{runtime.device}  {runtime.backend}  {runtime.precision}" in printed
