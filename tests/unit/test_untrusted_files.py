"""Files of strangers are data: descriptions, weights, workflows, scans and zips name nothing that runs."""

from __future__ import annotations

import base64
import json
import os
import pickle

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from nx47dask.cluster.spec import read_cluster
from nx47dask.errors import InputError, ModelError, Nx47Error, WorkflowError
from nx47dask.files.documents import read_document
from nx47dask.files.summaries import unpack_arrays
from nx47dask.io.volumes import discover
from nx47dask.models import describe_model, load_networks
from nx47dask.models.backends import predictor_for, resolve_backend
from nx47dask.models.surface_unet import surface_unet
from nx47dask.workflow import load_workflow
from tests.integration.tiny_model import DESCRIPTION
from tests.unit.test_nnunet import write_folder


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        """Call a program."""
        return os.mkdir, (str(self.made),)


@pytest.fixture
def made(tmp_path):
    """What exists if something ran."""
    path = tmp_path / "made"
    yield path
    assert not path.exists()


def described(path, **changed):
    path.with_suffix(".yaml").write_text(yaml.safe_dump(DESCRIPTION | changed))
    return path


@pytest.mark.parametrize(
    "factory",
    [
        "os:getcwd",
        "nx47dask.models.base:default_model_path",
        "nx47dask.models.check:ProcessPoolExecutor",
        "nx47dask.models.surface_unet:SurfaceUNet",
        "nx47dask.models.surface_unet.torch:rand",
        "nx47dask.models..surface_unet:surface_unet",
        "nx47dask.models_of_a_stranger:surface_unet",
    ],
)
def test_one_factory_needs_no_trust(tmp_path, factory):
    save_file(surface_unet().state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"its network is built by .*--trust"):
        describe_model(described(tmp_path / "m.safetensors", factory=factory))


def test_what_safetensors_says_of_itself_is_not_read(tmp_path, made):
    metadata = {"format": "pt", "__reduce__": f"os.mkdir('{made}')", "factory": "os:getcwd"}
    save_file(surface_unet().state_dict(), tmp_path / "m.safetensors", metadata=metadata)
    factory = "nx47dask.models.surface_unet:surface_unet"
    assert load_networks(describe_model(described(tmp_path / "m.safetensors", factory=factory)))


def test_a_checkpoint_that_is_a_pickle_is_not_loaded(tmp_path, made):
    folder = write_folder(tmp_path / "m")
    for legacy in (False, True):
        torch.save(Bomb(made), folder / "fold_0" / "checkpoint_final.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ModelError, match=r"a pickle, which can run any code|checkpoint_final\.pth: damaged"):
            describe_model(folder)


@pytest.mark.parametrize("name", ["m.pt", "m.ts", "m.pt2", "m.pth", "m.ckpt", "m.pkl", "m.onnx", "m.safetensors"])
def test_a_pickle_under_any_name_is_not_loaded(tmp_path, made, name):
    path = tmp_path / name
    torch.save({"state_dict": Bomb(made)}, path)
    described(path, factory="nx47dask.models.surface_unet:surface_unet")
    with pytest.raises(Nx47Error):
        predictor_for(info := describe_model(path), resolve_backend(info))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [MADE]",
        "a: !!python/object/new:os.mkdir [MADE]",
        "- !!python/name:os.mkdir",
        "!!python/module:antigravity",
        "? !!python/tuple [1]\n: 2",
    ],
)
def test_tags_of_yaml_make_nothing(tmp_path, made, text):
    path = tmp_path / "w.yaml"
    path.write_text(text.replace("MADE", str(made)))
    with pytest.raises(InputError, match=r"w\.yaml"):
        read_document(path)
    for read in (load_workflow, read_cluster):
        with pytest.raises(Nx47Error, match=r"w\.yaml"):
            read(str(path))


def test_a_value_of_the_command_line_makes_nothing(made):
    with pytest.raises(WorkflowError):
        load_workflow(overrides=[f"detect=!!python/object/apply:os.mkdir [{made}]"])


def test_a_summary_with_a_pickle_in_it_is_not_loaded(made):
    from io import BytesIO

    from numcodecs.zstd import Zstd

    buffer = BytesIO()
    np.savez(buffer, a=np.array([Bomb(made)], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        unpack_arrays(base64.b64encode(Zstd().encode(buffer.getvalue())).decode())


@pytest.mark.parametrize("place", ["compressor", "filter", "object", "version 3"])
def test_a_zarr_whose_codec_is_a_pickle_is_not_read(tmp_path, made, place):
    folder, codec = tmp_path / "scan.zarr", {"id": "pickle", "protocol": 5}
    folder.mkdir()
    (folder / "0.0.0").write_bytes(pickle.dumps(Bomb(made)))
    metadata = {"zarr_format": 2, "shape": [8] * 3, "chunks": [8] * 3, "fill_value": 0, "order": "C"}
    metadata |= {"dtype": "|O" if place == "object" else "|u1", "compressor": None, "filters": [codec]}
    if place == "compressor":
        metadata |= {"compressor": codec, "filters": None}
    (folder / ".zarray").write_text(json.dumps(metadata))
    if place == "version 3":
        (folder / ".zarray").unlink()
        (folder / "c" / "0" / "0").mkdir(parents=True)
        (folder / "0.0.0").rename(folder / "c" / "0" / "0" / "0")
        (folder / "zarr.json").write_text(json.dumps(version_3()))
    with pytest.raises(InputError, match=r"scan\.zarr: the Zarr metadata cannot be used"):
        discover([folder])


def version_3():
    """Metadata of Zarr 3 with the pickle of numcodecs as its last codec."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8] * 3,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8] * 3}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle", "configuration": {"protocol": 5}}],
        "attributes": {},
    }


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("location", ["../outside", "ABSOLUTE", "link", "folder/../../outside"])
def test_weights_of_onnx_outside_of_its_folder_are_not_read(tmp_path, backend, location):
    pytest.importorskip("onnx")
    pytest.importorskip(backend, reason=f"the extra that brings {backend}")
    folder, outside = tmp_path / "models", tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    np.ones(4, np.float32).tofile(outside)
    (folder / "link").symlink_to(outside)
    path = write_onnx(folder / "m.onnx", location.replace("ABSOLUTE", str(outside)))
    info = describe_model(described(path, window_zyx=[4, 4, 4]))
    with pytest.raises(ModelError, match=r"m\.onnx"):
        predictor_for(info, resolve_backend(info, backend=backend))


def write_onnx(path, location):
    """A network whose one weight lies in another file."""
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("ReduceSum", ["w"], ["s"], keepdims=0), helper.make_node("Add", ["x", "s"], ["y"])]
    given, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4, 4]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [given], [answer], initializer=[weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_an_onnx_file_beside_its_weights_is_read(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    np.ones(4, np.float32).tofile(tmp_path / "m.onnx.data")
    info = describe_model(described(write_onnx(tmp_path / "m.onnx", "m.onnx.data"), window_zyx=[4, 4, 4]))
    assert predictor_for(info, resolve_backend(info, backend="onnxruntime", batch=1))
