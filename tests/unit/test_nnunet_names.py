"""What the plans of an nnU-Net may name without trust: closed lists of classes, and nothing that runs."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from torch import nn

from nx47dask.errors import ModelError
from nx47dask.models import describe_model, load_networks
from nx47dask.models.nnunet_network import KNOWN_LAYERS, KNOWN_NETWORKS
from tests.unit.test_nnunet import ARCHITECTURE, write_folder

STRANGE = [
    "subprocess.Popen",
    "os.system",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.from_file",
    "torch.nn.modules.module.os.system",
    "torch.nn.modules.conv.torch.load",
    "torch.nn.Module",
    "torch.nn.Conv3d.__init__",
    "torch.nn.Sequential",
    "torch.nn.functional.relu",
    " torch.nn.ReLU",
    "torch.nn.ReLU\n",
    "torch..nn.ReLU",
    "dynamic_network_architectures.architectures.dinov2_eva.torch.load",
    "dynamic_network_architectures.building_blocks.residual.np.load",
    "ReLU",
    "",
    7,
    ["torch.nn.ReLU"],
    {"torch.nn.ReLU": 1},
]


def architecture(**changed):
    """The architecture of the tests with other arguments."""
    return ARCHITECTURE | {"arch_kwargs": ARCHITECTURE["arch_kwargs"] | changed}


def refused(folder, message):
    """Refuse the folder both when it is described and when its description comes from elsewhere."""
    with pytest.raises(ModelError, match=message) as error:
        describe_model(folder)
    assert "--trust" in error.value.hint
    with pytest.raises(ModelError, match=message):
        load_networks(describe_model(folder, trust=True))


def test_plans_that_name_a_program_do_not_run_it(tmp_path):
    made = tmp_path / "made"
    call = architecture(nonlin="subprocess.Popen", nonlin_kwargs={"args": ["touch", str(made)]})
    refused(write_folder(tmp_path / "m", architecture=call), r"plans\.json: nonlin: its layer is subprocess\.Popen")
    assert not made.exists()


@pytest.mark.parametrize("key", ["conv_op", "norm_op", "dropout_op", "nonlin"])
@pytest.mark.parametrize("name", STRANGE, ids=repr)
def test_a_layer_that_is_not_on_the_list_needs_trust(tmp_path, key, name):
    refused(write_folder(tmp_path, architecture=architecture(**{key: name})), f"{key}: its layer is ")


@pytest.mark.parametrize("name", [name for name in STRANGE if isinstance(name, str)] + ["torch.nn.ReLU"], ids=repr)
def test_a_network_that_is_not_on_the_list_needs_trust(tmp_path, name):
    strange = ARCHITECTURE | {"network_class_name": name}
    refused(write_folder(tmp_path, architecture=strange), "network_class_name: its network is ")


def test_a_further_key_to_import_is_judged_as_well(tmp_path):
    block = architecture(block="os.system") | {"_kw_requires_import": ["conv_op", "block"]}
    refused(write_folder(tmp_path, architecture=block), r"block: its layer is os\.system")


def test_judging_a_name_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "spying.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    refused(write_folder(tmp_path / "m", architecture=architecture(nonlin="spying.X")), r"its layer is spying\.X")
    assert "spying" not in sys.modules


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"network_class_name": None}, r"architecture\.network_class_name is None, expected a str"),
        ({"arch_kwargs": [1]}, r"architecture\.arch_kwargs is \[1\], expected a dict"),
        ({"_kw_requires_import": None}, r"architecture\._kw_requires_import is None, expected a list"),
        ({"_kw_requires_import": ["absent"]}, "_kw_requires_import lists 'absent', which arch_kwargs does not have"),
        ({"_kw_requires_import": [["nonlin"]]}, r"_kw_requires_import lists \['nonlin'\]"),
    ],
)
def test_an_architecture_with_odd_keys_is_refused_by_name(tmp_path, changed, message):
    folder = write_folder(tmp_path, architecture=ARCHITECTURE | changed)
    for trust in (False, True):
        with pytest.raises(ModelError, match=message):
            describe_model(folder, trust=trust)


@pytest.mark.parametrize(
    "changed", [{"n_stages": "two"}, {"strides": []}, {"unknown": 1}, {"nonlin_kwargs": {"args": ["touch", "x"]}}]
)
def test_arguments_that_do_not_fit_are_an_error_of_the_model(tmp_path, changed):
    pytest.importorskip("dynamic_network_architectures", reason="pip install 'nx47dask[nnunet]'")
    info = describe_model(write_folder(tmp_path, architecture=architecture(**changed)))
    with pytest.raises(ModelError, match=r"plans\.json: .*PlainConvUNet cannot be built from its arch_kwargs"):
        load_networks(info)


@pytest.mark.parametrize(
    ("mine", "others", "message"),
    [
        ({"inherits_from": "mine"}, {}, "goes round in a circle: mine -> mine"),
        ({"inherits_from": "a"}, {"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}, "mine -> a -> b -> a"),
        ({"inherits_from": "gone"}, {}, "configuration 'mine' inherits from 'gone', which is not a configuration"),
        ({"inherits_from": ["mine"]}, {}, r"configuration 'mine' inherits from \['mine'\]"),
        ({"inherits_from": "a"}, {"a": 3}, "configuration 'mine' inherits from 'a', which is not a configuration"),
    ],
)
def test_inheritance_that_does_not_end_is_refused(tmp_path, mine, others, message):
    with pytest.raises(ModelError, match=message):
        describe_model(write_folder(tmp_path, plans={"configurations": {"mine": mine, **others}}))


@pytest.mark.parametrize("name", sorted(name for name in KNOWN_LAYERS if name.startswith("torch.")))
def test_every_layer_on_the_list_is_one_of_torch(name):
    module, _, attribute = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), attribute), nn.Module)


def test_every_other_name_on_the_lists_is_a_class_of_the_package():
    pytest.importorskip("dynamic_network_architectures", reason="pip install 'nx47dask[nnunet]'")
    for name in KNOWN_NETWORKS | {name for name in KNOWN_LAYERS if not name.startswith("torch.")}:
        module, _, attribute = name.rpartition(".")
        source = Path(find_spec(module).origin).read_text()  # importing all of them needs more than the extra brings
        assert f"class {attribute}(" in source
