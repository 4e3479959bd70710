"""TorchScript without trust: ordinary networks load, and a program that reaches outside is refused before it runs."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
import yaml
from torch import nn

from nx47dask.errors import ModelError
from nx47dask.models import describe_model, load_networks
from nx47dask.models.surface_unet import surface_unet
from tests.integration.tiny_model import DESCRIPTION, write_model


class Plain(nn.Module):
    """A network with one default value, which torch computes while it loads the file."""

    def forward(self, x: torch.Tensor, y: int = 3) -> torch.Tensor:
        """Add a number."""
        return x + y


class Overwriting(nn.Module):
    """A network that writes to a file when it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Write zeros."""
        return x + torch.from_file(self.path, True, 4).zero_().sum()


class Hidden(nn.Module):
    """A network whose part writes, in a branch of a loop."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.part = Overwriting(path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Write in a branch that is seldom taken."""
        for _ in range(int(x.shape[0])):
            if x.sum() > 1e9:
                x = self.part(x)
        return x


class Restored(nn.Module):
    """A network that writes when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.kept = torch.zeros(4)

    @torch.jit.export
    def __getstate__(self):
        """Give the path and the mode."""
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        """Write to the path."""
        self.path = state[0]
        self.training = state[1]
        self.kept = torch.from_file(self.path, True, 4).zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the image back."""
        return x + self.kept.sum()


class Printing(nn.Module):
    """A network that writes to the output of the program."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Print the image."""
        print(x)
        return x


@pytest.fixture
def victim(tmp_path):
    """A file that must stay as it is."""
    path = tmp_path / "victim"
    path.write_bytes(b"a" * 16)
    return path


def described(path):
    path.with_suffix(".yaml").write_text(yaml.safe_dump(DESCRIPTION))
    return path


def saved(network, path):
    torch.jit.script(network).save(path)
    return described(path)


def rewritten(path, change=lambda code: code, extra=()):
    """The archive of a plain network with other code, or more entries, as somebody could write it by hand."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Plain()), buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            code = name.endswith(".py")
            target.writestr(name, change(source.read(name).decode()) if code else source.read(name))
        top, program = name.partition("/")[0], next(name for name in source.namelist() if name.endswith(".py"))
        for name in extra:
            capitals = program.upper().replace(top.upper(), top)
            target.writestr(name.format(top=top, program=program, capitals=capitals), "")
    return described(path)


def refused(path, message):
    """Refuse the file both when it is described and when its description comes from elsewhere."""
    with pytest.raises(ModelError, match=message):
        describe_model(path)
    info = describe_model(path, trust=True)
    with pytest.raises(ModelError, match=message):
        load_networks(info)


@pytest.mark.parametrize("network", [Overwriting, Hidden])
def test_a_program_that_writes_a_file_needs_trust(tmp_path, victim, network):
    path = saved(network(str(victim)), tmp_path / "m.pt")
    refused(path, "its program uses from_file, more than plain tensor operators.*--trust")
    assert victim.read_bytes() == b"a" * 16


def test_with_trust_the_same_program_runs(tmp_path, victim):
    path = saved(Overwriting(str(victim)), tmp_path / "m.pt")
    (network,) = load_networks(describe_model(path, trust=True), trust=True)
    network(torch.zeros(1, 1, 4, 4, 4))
    assert victim.read_bytes() == bytes(16)


def test_a_program_that_writes_while_it_is_loaded_is_not_loaded(tmp_path, victim):
    path = saved(Restored(str(victim)), tmp_path / "m.pt")
    victim.write_bytes(b"a" * 16)
    refused(path, "its program uses __")
    assert victim.read_bytes() == b"a" * 16
    torch.jit.load(path)
    assert victim.read_bytes() == bytes(16), "torch no longer runs __setstate__ as it loads; the test shows nothing"


CALLS = {
    "plain": 'torch.zero_(torch.from_file("VICTIM", True, 4))',
    "spaces": 'torch . zero_(torch .  from_file("VICTIM", True, 4))',
    "lines": 'torch.zero_(torch.\n\n  from_file("VICTIM", True, 4))',
    "comments": 'torch.zero_(torch. # a comment\n  from_file("VICTIM", True, 4))',
    "library": 'torch.zero_(ops.aten.from_file("VICTIM", True, 4))',
    "getattr": 'torch.zero_(getattr(torch, "from_file")("VICTIM", True, 4))',
    "getattr in parts": 'torch.zero_(getattr(torch, "from_" "file")("VICTIM", True, 4))',
    "getattr escaped": 'torch.zero_(getattr(torch, "from\\x5ffile")("VICTIM", True, 4))',
    "nested": 'torch.zero_(getattr(getattr(ops, "aten"), "from_file")("VICTIM", True, 4))',
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_default_value_is_not_computed_before_it_is_judged(tmp_path, victim, call):
    call = call.replace("VICTIM", str(victim))
    path = rewritten(tmp_path / "m.pt", lambda code: code.replace("y: int=3", f"y: Tensor={call}"))
    refused(path, "its program uses ")
    assert victim.read_bytes() == b"a" * 16


def test_torch_does_compute_default_values_as_it_loads(tmp_path, victim):
    call = CALLS["plain"].replace("VICTIM", str(victim))
    torch.jit.load(rewritten(tmp_path / "m.pt", lambda code: code.replace("y: int=3", f"y: Tensor={call}")))
    assert victim.read_bytes() == bytes(16)


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ('torch.save(x, "made")', "save"),
        ("_0 = torch.rand([2])", "rand"),
        ("torch.set_grad_enabled(True)", "set_grad_enabled"),
        ("_0 = torch.as_strided(x, [9], [9])", "as_strided"),
        ("a = ops", "ops"),
        ("_0 = ops.profiler._record_function_enter('a')", "ops.profiler"),
        ("_0 = fork(x)", "fork"),
        ("_0 = __torch__.torch.classes.quantized.Conv3dPackedParamsBase()", "torch.classes"),
        ("_0 = __torch__ . torch \\\n . classes.quantized.X()", "torch"),
    ],
)
def test_what_is_no_plain_tensor_operator_is_named(tmp_path, statement, word):
    path = rewritten(
        tmp_path / "m.pt", lambda code: code.replace("    return torch.add", f"    {statement}\n    return torch.add")
    )
    refused(path, f"its program uses {word}")


def test_a_program_that_prints_needs_trust(tmp_path):
    with pytest.raises(ModelError, match="its program uses prim::Print"):
        load_networks(describe_model(saved(Printing(), tmp_path / "m.pt")))


@pytest.mark.parametrize("name", ["{program}", "{capitals}"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_second_program_of_the_same_name_is_refused(tmp_path, name):
    with pytest.raises(ModelError, match=r"its entry code/.*\.py is there twice|cannot read it"):
        describe_model(rewritten(tmp_path / "m.pt", extra=[name]))


def test_archives_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(ModelError, match="an archive of an old kind"):
        describe_model(rewritten(tmp_path / "old.pt", extra=["{top}/model.json"]))
    two = rewritten(tmp_path / "two.pt")
    two.write_bytes(b"\0\0\0\0PTMF" + two.read_bytes())  # a mobile model by its beginning, an archive by its end
    with pytest.raises(ModelError, match="not a TorchScript file"):
        describe_model(two)


class Parts(nn.Module):
    """Layers of many kinds, with numbered parts, as networks of segmentation have them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU())
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), norm, act, nn.Dropout3d(0.1))
            for norm, act in ((nn.BatchNorm3d(4), nn.SiLU(inplace=True)), (nn.GroupNorm(2, 4), nn.GELU()))
        )
        self.down, self.up = nn.MaxPool3d(2), nn.ConvTranspose3d(4, 4, 2, 2)
        self.attention, self.norm = nn.MultiheadAttention(4, 2, batch_first=True), nn.LayerNorm(4)
        self.leave = nn.Conv3d(8, 2, 1)
        self.ops = nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give two channels."""
        x = self.enter(x)
        skip = x
        for level in self.levels:
            x = level(x)
        tokens = self.norm(self.down(x).flatten(2).transpose(1, 2))
        answer, _ = self.attention(tokens, tokens, tokens)
        low = answer.transpose(1, 2).reshape(self.down(x).shape)
        wide = nn.functional.interpolate(low, scale_factor=2.0, mode="trilinear", align_corners=False)
        joined = torch.cat([self.ops(self.up(low) + wide), nn.functional.pad(skip, [1] * 6)[:, :, 1:-1, 1:-1, 1:-1]], 1)
        return torch.softmax(self.leave(joined), 1)


@pytest.mark.parametrize("how", ["script", "trace", "frozen"])
@pytest.mark.filterwarnings("ignore")
def test_ordinary_networks_load_without_trust(tmp_path, how):
    torch.manual_seed(0)
    network, windows = Parts().eval(), torch.randn(1, 1, 8, 8, 8)
    program = torch.jit.trace(network, windows, check_trace=False) if how == "trace" else torch.jit.script(network)
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.freeze(program) if how == "frozen" else program, path)
    (loaded,) = load_networks(describe_model(described(path)))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(windows), network(windows), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_default_network_and_the_tiny_one_load_without_trust(tmp_path):
    traced = torch.jit.trace(surface_unet().eval(), torch.zeros(1, 1, 16, 16, 16), check_trace=False)
    path = tmp_path / "surface.pt"
    torch.jit.save(traced, path)
    for model in (described(path), write_model(tmp_path / "tiny.ts")):
        assert len(load_networks(describe_model(model))) == 1
