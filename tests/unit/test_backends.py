"""What runs networks: the same answers from every backend, the same bits always, errors that say what to change."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from scipy.special import expit, log_softmax, softmax
from torch import nn

from nx47dask.errors import ModelError
from nx47dask.models import describe_model
from nx47dask.models.backends import predictor_for, resolve_backend, runtimes_here
from nx47dask.models.backends import runtime as runtimes
from nx47dask.models.backends.onnx_output import surface_of
from nx47dask.models.backends.surface import SurfaceNetwork
from tests.predictors import open_predictor

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

WINDOW = (16, 12, 20)
CPU_BACKENDS = ["torch", "openvino", "onnxruntime"]


def network(classes, seed=0):
    """Convolutions as a U-Net has them, small, with answers that vary."""
    torch.manual_seed(seed)
    layers = [
        nn.Conv3d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv3d(8, 16, 2, stride=2),
        nn.LeakyReLU(),
        nn.ConvTranspose3d(16, 8, 2, stride=2),
        nn.SiLU(),
        nn.Conv3d(8, classes, 3, padding=1),
    ]
    with torch.no_grad():
        layers[-1].weight *= 20
    return nn.Sequential(*layers).eval()


def describe(path, **described):
    """Write the description beside a model file and read it."""
    known = {"window_zyx": list(WINDOW), "activation": "softmax", "normalisation": {"scheme": "zscore"}}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(known | {"classes": 2, "surface": 1} | described))
    return describe_model(path)


def torch_model(folder, module=None, **described):
    """A TorchScript file with its description."""
    path = folder / "net.ts"
    torch.jit.script(module or network(described.get("classes", 2))).save(path)
    return describe(path, **described)


def onnx_model(folder, shape=("batch", 1, *WINDOW), **described):
    """One convolution as an ONNX file with its description."""
    onnx = pytest.importorskip("onnx")
    classes = described.get("classes", 2)
    weight = np.random.default_rng(1).normal(0, 2, (classes, 1, 3, 3, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["image", "weight"], ["answer"], pads=[1] * 6)],
        "net",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("answer", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    path = folder / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return describe(path, **described)


def model_for(backend, folder, **described):
    """A model that the backend runs, or a skip."""
    pytest.importorskip(backend)
    return (onnx_model if backend == "onnxruntime" else torch_model)(folder, **described)


def windows(batch, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, 1, *WINDOW), dtype=np.float32)


def expected(output, info):
    """The surface of a network's output by scipy, in float64."""
    output, surface = output.astype(np.float64), info.surface
    if info.activation == "none":
        return output[:, surface]
    if info.activation == "sigmoid":
        return expit(output[:, surface]) if info.values == "probability" else output[:, surface]
    probability = softmax(output, axis=1)[:, surface]
    if info.values == "probability":
        return probability
    return log_softmax(output, axis=1)[:, surface] - np.log1p(-probability)


@pytest.mark.parametrize(
    ("activation", "classes", "surface", "values"),
    [
        *itertools.product(["sigmoid"], [1], [0], ["probability", "logit"]),
        *itertools.product(["sigmoid", "softmax"], [2, 4], [0, 1], ["probability", "logit"]),
        ("none", 2, 1, "probability"),
    ],
)
def test_the_surface_of_an_output(tmp_path, activation, classes, surface, values):
    info = torch_model(tmp_path, activation=activation, classes=classes, surface=surface, values=values)
    output = np.random.default_rng(0).normal(0, 3, (2, classes, *WINDOW)).astype(np.float32)
    if activation == "none":
        output = expit(output)
    right = expected(output, info)
    in_torch = SurfaceNetwork([nn.Identity()], info)(torch.from_numpy(output)).numpy()
    before = output.copy()
    in_numpy = surface_of(output, info)
    for found in (in_torch, in_numpy):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-5)
    assert np.array_equal(output, before)


def test_extreme_outputs_stay_finite(tmp_path):
    info = torch_model(tmp_path, activation="sigmoid", classes=1, surface=0)
    output = np.broadcast_to(np.float32([-1e4, 1e4])[:, None, None, None, None], (2, 1, *WINDOW))
    for found in (surface_of(output, info), SurfaceNetwork([nn.Identity()], info)(torch.tensor(output)).numpy()):
        assert np.array_equal(np.unique(found), [0, 1])


@pytest.mark.parametrize("values", ["probability", "logit"])
def test_members_are_averaged_in_the_models_terms(tmp_path, values):
    info = torch_model(tmp_path, values=values)
    members, image = [network(2, seed) for seed in range(3)], torch.from_numpy(windows(1))
    with torch.inference_mode():
        found = SurfaceNetwork(members, info)(image).numpy()
        right = np.mean([expected(member(image).numpy(), info) for member in members], axis=0)
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("backend", "values"), [("torch", "probability"), ("torch", "logit"), ("openvino", "logit")])
def test_backends_agree_with_the_network_itself(tmp_path, backend, values):
    pytest.importorskip(backend)
    info = torch_model(tmp_path, classes=3, values=values)
    batch = windows(2)
    (found,) = open_predictor(info, device="cpu", backend=backend, batch=2).run([batch])
    with torch.inference_mode():
        right = expected(network(3)(torch.from_numpy(batch)).numpy(), info)
    assert right.std() > 0.05
    np.testing.assert_allclose(found, right, atol=1e-4)


def test_an_onnx_file_runs_alike_on_both_of_its_backends(tmp_path):
    info = onnx_model(tmp_path)
    batch = windows(2)
    one, other = (
        next(open_predictor(info, device="cpu", backend=backend, batch=2).run([batch]))
        for backend in ("openvino", "onnxruntime")
        if pytest.importorskip(backend)
    )
    assert one.std() > 0.1
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_window_gives_the_same_bits_wherever_it_is_in_whatever_batch(tmp_path, backend):
    predictor = open_predictor(model_for(backend, tmp_path), device="cpu", backend=backend, batch=3)
    one = windows(1)[0]
    batches = [windows(3, seed) for seed in (1, 2, 3, 4)]
    for place in range(3):
        batches[place][place] = one
    batches[3][:] = one
    answers = list(predictor.run(batches))
    bits = {answers[place][place].tobytes() for place in range(3)} | {answer.tobytes() for answer in answers[3]}
    assert len(bits) == 1
    again = list(predictor.run(batches))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(answers, again, strict=True))


SCRIPT = """
import hashlib, sys
import numpy as np
from nx47dask.models import describe_model
from nx47dask.models.backends import predictor_for, resolve_backend
for path, backend in zip(sys.argv[1::2], sys.argv[2::2]):
    batch = np.random.default_rng(0).standard_normal((1, 1, 16, 12, 20), dtype=np.float32)
    info = describe_model(path)
    (answer,) = predictor_for(info, resolve_backend(info, device="cpu", backend=backend)).run([batch])
    print(hashlib.sha256(answer).hexdigest())
assert "openvino_telemetry" not in sys.modules
"""


def test_another_process_gives_the_same_bits_and_reports_to_nobody(tmp_path):
    found, arguments = [], []
    for backend in CPU_BACKENDS:
        info = model_for(backend, tmp_path)
        (answer,) = open_predictor(info, device="cpu", backend=backend).run([windows(1)])
        found.append(hashlib.sha256(answer).hexdigest())
        arguments += [str(info.path), backend]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == found


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_batches_are_taken_one_by_one_and_answers_are_arrays_of_their_own(tmp_path, backend):
    pytest.importorskip(backend)
    info = torch_model(tmp_path) if backend == "torch" else onnx_model(tmp_path)
    predictor = open_predictor(info, device="cpu", backend=backend)
    taken = []
    buffer = np.empty((1, 1, *WINDOW), np.float32)

    def source():
        for seed in range(4):
            taken.append(seed)
            buffer[:] = windows(1, seed)
            yield buffer

    answers = []
    for number, answer in enumerate(predictor.run(source())):
        assert len(taken) <= number + 2
        answers.append(answer)
    for seed, answer in enumerate(answers):
        (alone,) = predictor.run([windows(1, seed)])
        assert answer.tobytes() == alone.tobytes()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_two_threads_may_share_a_predictor(tmp_path, backend):
    pytest.importorskip(backend)
    info = torch_model(tmp_path) if backend == "torch" else onnx_model(tmp_path)
    predictor = open_predictor(info, device="cpu", backend=backend)
    sources = [[windows(1, seed) for seed in range(first, first + 10)] for first in (0, 10)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda source: [answer.tobytes() for answer in predictor.run(source)], sources))
    assert together == [[answer.tobytes() for answer in predictor.run(source)] for source in sources]


def test_threads_of_torch_are_left_as_they_were(tmp_path):
    torch.set_num_threads(2)
    try:
        predictor = open_predictor(torch_model(tmp_path), device="cpu", backend="torch", threads=1)
        seen = [torch.get_num_threads() for _ in predictor.run([windows(1)])]
        assert seen == [2]
    finally:
        torch.set_num_threads(1)


class Wrong(nn.Module):
    """Answers that no network should give."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.kind == "nan":
            return torch.cat([image, torch.log(image - 100)], 1)
        if self.kind == "classes":
            return torch.cat([image, image, image], 1)
        if self.kind == "fails":
            return image.reshape(7, 7)
        return torch.cat([image, image * 0 + 2], 1)


CLASSES = [f"returns {(1, 3, *WINDOW)}", f"expected {(1, 2, *WINDOW)}", "correct classes"]
FAILS = ["fails on windows of (16, 12, 20)", "check window_zyx"]


@pytest.mark.parametrize(
    ("backend", "kind", "words"),
    [
        ("torch", "nan", ["window 0", "not finite", "normalisation"]),
        ("openvino", "nan", ["window 0", "not finite", "normalisation"]),
        ("torch", "large", ["outside 0..1", "most 2.0", "activation 'none' does not make a probability"]),
        ("torch", "classes", CLASSES),
        ("openvino", "classes", CLASSES),
        ("torch", "fails", FAILS),
        ("openvino", "fails", FAILS),
    ],
)
def test_wrong_answers_are_refused(tmp_path, backend, kind, words):
    pytest.importorskip(backend)
    info = torch_model(tmp_path, Wrong(kind), activation="none" if kind == "large" else "softmax")
    with pytest.raises(ModelError) as error:
        list(open_predictor(info, device="cpu", backend=backend).run([windows(1)]))
    for word in [str(info.path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_onnx_file_for_another_window_or_class_count_is_refused(tmp_path, backend):
    pytest.importorskip(backend)
    info = onnx_model(tmp_path, shape=(1, 1, 8, 8, 8))
    with pytest.raises(ModelError, match=r"takes .* \(1, 1, 8, 8, 8\); expected float32 \(1, 1, 16, 12, 20\)"):
        open_predictor(info, device="cpu", backend=backend)
    info = replace(onnx_model(tmp_path), classes=5)
    with pytest.raises(ModelError, match=r"returns \(1, 2, 16, 12, 20\); expected \(1, 5, 16, 12, 20\)"):
        list(open_predictor(info, device="cpu", backend=backend).run([windows(1)]))


def test_a_batch_of_another_shape_or_type_is_refused(tmp_path):
    predictor = open_predictor(torch_model(tmp_path), device="cpu", backend="torch", batch=2)
    for batch in (windows(1), windows(2).astype(np.float64)):
        with pytest.raises(ModelError, match=r"a batch is float.*expected float32 \(2, 1, 16, 12, 20\)"):
            list(predictor.run([batch]))


def test_what_runs_a_model_is_decided_once(tmp_path, monkeypatch):
    info = torch_model(tmp_path)
    monkeypatch.setattr(runtimes, "_is_here", lambda device, backend: device == "cpu")
    monkeypatch.setattr(runtimes, "_installed", lambda packages: True)
    monkeypatch.setattr(runtimes, "_version", {"openvino": "1", "torch": "2"}.get)
    runtime = resolve_backend(info, batch=4, trust=True)
    assert (runtime.device, runtime.backend) == ("cpu", "openvino")
    assert runtime.versions == (("openvino", "1"), ("torch", "2"))
    assert runtime.to_json() == {
        "device": "cpu",
        "backend": "openvino",
        "precision": "float32",
        "batch": 4,
        "threads": 1,
        "compile": False,
        "versions": {"openvino": "1", "torch": "2"},
    }
    assert resolve_backend(info, compile=True).backend == "torch"
    assert resolve_backend(info, device="cuda", precision="float16").device == "cuda"
    monkeypatch.setattr(runtimes, "_installed", lambda packages: packages == ("torch",))
    assert resolve_backend(info).backend == "torch"
    monkeypatch.setattr(runtimes, "_is_here", lambda device, backend: True)
    assert str(resolve_backend(info, batch=2)) == "torch on cuda, float32, batches of 2"


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"device": "cpu", "precision": "float16"}, "nothing runs it with device cpu.*cpu torch .float32, bfloat16"),
        ({"backend": "openvino", "compile": True}, "backend openvino.*compile true"),
        ({"backend": "onnxruntime"}, "nothing runs it"),
    ],
)
def test_combinations_that_do_not_exist_are_refused(tmp_path, choice, words):
    with pytest.raises(ModelError, match=words):
        resolve_backend(torch_model(tmp_path), **choice)


def test_log_odds_of_a_probability_are_refused(tmp_path):
    info = replace(torch_model(tmp_path, activation="none"), values="logit")
    with pytest.raises(ModelError, match="a probability already"):
        resolve_backend(info)


def test_what_is_not_here_is_named(tmp_path, monkeypatch):
    info = torch_model(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="finds no CUDA device; set device: cpu"):
            open_predictor(info, device="cuda")
    runtime = resolve_backend(info, device="cpu", backend="torch")
    with pytest.raises(ModelError, match=r"torch 0\.1 was planned, this worker has 2"):
        predictor_for(info, replace(runtime, versions=(("torch", "0.1"),)))
    monkeypatch.setattr(runtimes, "_installed", lambda packages: False)
    with pytest.raises(ModelError, match="needs openvino and torch on cpu, which is not here"):
        resolve_backend(info, backend="openvino")


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_reduced_precision_runs_where_the_cpu_has_it(tmp_path, backend):
    pytest.importorskip(backend)
    info = torch_model(tmp_path)
    exact = next(open_predictor(info, device="cpu", backend="torch").run([windows(1)]))
    choice = {"device": "cpu", "backend": backend, "precision": "bfloat16"}
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(ModelError, match="this CPU has no bfloat16"):
            open_predictor(info, **choice)
        return
    reduced = next(open_predictor(info, **choice).run([windows(1)]))
    assert 0 < np.abs(reduced - exact).max() < 0.1


def test_a_process_keeps_one_predictor(tmp_path):
    info = torch_model(tmp_path)
    runtime = resolve_backend(info, device="cpu", backend="torch")
    assert predictor_for(info, runtime) is predictor_for(replace(info), replace(runtime))
    assert predictor_for(info, replace(runtime, batch=2)) is not predictor_for(info, runtime)
    assert runtime in list(runtimes_here(info))
