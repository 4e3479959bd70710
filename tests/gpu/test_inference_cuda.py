"""Networks on a CUDA device: what the CPU gives, the same bits always, batches one ahead through pinned memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nx47dask.models.backends import resolve_backend, torch_cuda
from nx47dask.models.check import check_model
from tests.predictors import open_predictor
from tests.unit.test_backends import WINDOW, network, torch_model, windows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


def on_gpu(info, **choice):
    return open_predictor(info, device="cuda", backend="torch", **choice)


@pytest.mark.parametrize("values", ["probability", "logit"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float16", 2e-2), ("bfloat16", 1e-1)])
def test_the_gpu_gives_what_the_cpu_gives(tmp_path, precision, tolerance, values):
    info = torch_model(tmp_path, values=values)
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this device has no bfloat16")
    batches = [windows(2, seed) for seed in range(5)]
    found = list(on_gpu(info, precision=precision, batch=2).run(batches))
    right = list(open_predictor(info, device="cpu", backend="torch", batch=2).run(batches))
    assert [answer.dtype for answer in found] == [np.float32] * 5
    assert max(np.abs(a - b).max() for a, b in zip(found, right, strict=True)) < tolerance


def test_auto_takes_the_gpu(tmp_path):
    assert resolve_backend(torch_model(tmp_path)).device == "cuda"


def test_a_window_gives_the_same_bits_wherever_it_is_in_whatever_batch(tmp_path):
    predictor = on_gpu(torch_model(tmp_path), batch=3)
    one = windows(1)[0]
    batches = [windows(3, seed) for seed in range(1, 8)]
    for number, batch in enumerate(batches):
        batch[number % 3] = one
    answers = list(predictor.run(batches))
    assert len({answer[number % 3].tobytes() for number, answer in enumerate(answers)}) == 1
    again = list(predictor.run(batches))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(answers, again, strict=True))


def test_batches_are_taken_one_ahead_and_buffers_are_not_mixed_up(tmp_path):
    """The source fills one array again and again; many batches go through the two slots."""
    predictor = on_gpu(torch_model(tmp_path))
    taken = []
    buffer = np.empty((1, 1, *WINDOW), np.float32)

    def source():
        for seed in range(25):
            taken.append(seed)
            buffer[:] = windows(1, seed)
            yield buffer

    answers = []
    for number, answer in enumerate(predictor.run(source())):
        assert len(taken) == min(number + 2, 25)
        answers.append(answer)
    for seed, answer in enumerate(answers):
        (alone,) = predictor.run([windows(1, seed)])
        assert answer.tobytes() == alone.tobytes()


def test_buffers_are_pinned_and_a_caller_may_stop_early(tmp_path, monkeypatch):
    made = []

    class Watched(torch_cuda._Slot):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(torch_cuda, "_Slot", Watched)
    predictor = on_gpu(torch_model(tmp_path))
    run = predictor.run(windows(1, seed) for seed in range(5))
    first = next(run)
    run.close()
    assert len(made) == 2
    assert all(slot.sent.is_pinned() and slot.received.is_pinned() and slot.image.is_cuda for slot in made)
    (alone,) = predictor.run([windows(1)])
    assert first.tobytes() == alone.tobytes()


def test_weights_lie_channels_last(tmp_path):
    info = torch_model(tmp_path)
    prepared = torch_cuda.as_network([network(2)], info)
    weights = [weight for weight in prepared.parameters() if weight.dim() == 5]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)


@pytest.mark.slow
def test_a_compiled_network_gives_nearly_the_same(tmp_path):
    pytest.importorskip("triton")
    info = torch_model(tmp_path)
    (plain,) = on_gpu(info).run([windows(1)])
    predictor = on_gpu(info, compile=True)
    (compiled,) = predictor.run([windows(1)])
    (again,) = predictor.run([windows(1)])
    assert np.abs(plain - compiled).max() < 1e-3
    assert compiled.tobytes() == again.tobytes()


def test_a_check_counts_the_memory_of_the_device(tmp_path):
    trials = check_model(torch_model(tmp_path), peak_bytes=int, device="cuda", precision="float32")
    assert [trial.failure for trial in trials] == [None]
    assert trials[0].device_peak_bytes > 1 << 16
