"""Workflow files: presets, overrides, and errors that name the line, the key and what is allowed."""

from __future__ import annotations

import pytest
import yaml

from nx47dask.errors import WorkflowError
from nx47dask.files.presets import preset_names
from nx47dask.workflow import Settings, load_workflow, workflow_of

GOOD = """\
detect:
  - residual: {weight: 0.5}
  - sheetness
postprocess:
  - hysteresis:
      low: 0.4
      high: 0.6
  - closing: {radius_zyx_vox: [1, 1, 1]}
  - closing: {radius_zyx_vox: [2, 2, 2]}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "w.yaml"
        path.write_text(text)
        return path

    return write


def test_presets_load():
    assert {"surface", "v61.1", "v61.2", "fast"} <= set(preset_names())
    for name in preset_names():
        workflow = load_workflow(name)
        assert workflow.name == name
        assert workflow.steps


def test_overrides_reach_their_key(write):
    overrides = [
        "postprocess.hysteresis.high=0.9",
        "postprocess.closing#2.radius_zyx_vox=[3,1,1]",
        "detect.residual.weight=2",
    ]
    resolved = load_workflow(write(GOOD), overrides).resolved
    assert resolved["postprocess"][0]["hysteresis"]["high"] == 0.9
    assert resolved["postprocess"][1]["closing"]["radius_zyx_vox"] == (1, 1, 1)
    assert resolved["postprocess"][2]["closing#2"]["radius_zyx_vox"] == (3, 1, 1)
    assert resolved["detect"][0]["residual"]["weight"] == 2


def test_a_resolved_workflow_is_read_as_it_is(write):
    workflow = load_workflow(write(GOOD))
    again = workflow_of(workflow.resolved, workflow.name)
    assert "closing#2" in again.resolved["postprocess"][2]
    assert again == workflow
    with pytest.raises(WorkflowError, match="unknown key 'closing#7'"):
        load_workflow(write(GOOD + "  - closing#7: {}\n"))


def test_settings_stand_beside_the_lists_and_can_be_overridden(write):
    path = write(GOOD + "combine: logit\ndetect_block: 64\n")
    workflow = load_workflow(path, ["detect_block=128", "probability=uint16"])
    assert workflow.settings == Settings("logit", "uint16", 128)
    written = yaml.safe_dump({name: workflow.resolved[name] for name in ("combine", "probability", "detect_block")})
    assert load_workflow(write(GOOD + written)).settings == workflow.settings
    with pytest.raises(WorkflowError, match=r"override probability=int8: probability = 'int8'"):
        load_workflow(path, ["probability=int8"])


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("high: 0.6", "hihg: 0.6", ["line 7", "'hihg'", "did you mean 'high'?", "allowed: low, high"]),
        ("high: 0.6", "high: lots", ["line 7", "hysteresis.high = 'lots'", "valid number"]),
        ("high: 0.6", "high: '0.6'", ["line 7", "hysteresis.high = '0.6'", "valid number"]),
        ("high: 0.6", "high: true", ["line 7", "hysteresis.high = True", "valid number"]),
        ("high: 0.6", "high: 0.6\n      high: 0.7", ["line 8", "key 'high' stands here twice"]),
        ("high: 0.6", "high: 1.5", ["line 7", "hysteresis.high = 1.5", "less than or equal to 1"]),
        ("high: 0.6", "high: 0.3", ["line 5", "low 0.4 exceeds high 0.3"]),
        ("  - sheetness\n", "  - shetness\n", ["line 3", "did you mean 'sheetness'?"]),
        ("weight: 0.5", "weight: -1", ["line 2", "weight -1", "above 0"]),
        ("postprocess:", "post:", ["line 4", "unknown key 'post'", "allowed: description, detect, postprocess"]),
        ("  - sheetness\n", "  - residual_band\n", ["line 1", "stands alone"]),
        ("  - sheetness\n", "  - learned: {overlap: 2}\n", ["line 3", "learned.overlap = 2", "0.95"]),
        ("  - sheetness\n", "  - learned: {device: tpu}\n", ["line 3", "learned.device = 'tpu'", "'cuda'"]),
        ("  - sheetness\n", "  - learned: {mirrors: [z, z]}\n", ["line 3", "names an axis twice"]),
        ("  - sheetness\n", "  - learned: {overlap: 0, step_zyx: [1, 1, 1]}\n", ["line 3", "leave one out"]),
        ("detect:", "combine: median\ndetect:", ["line 1", "combine = 'median'", "'probability' or 'logit'"]),
        ("detect:", "detect_block: 0\ndetect:", ["line 1", "detect_block = 0", "greater than or equal to 1"]),
        ("detect:", "detect: []\nx:", ["unknown key 'x'"]),
        ("[1, 1, 1]", "[1, 1]", ["line 8", "closing"]),
    ],
)  # fmt: skip
def test_errors_name_the_line_the_key_and_what_is_allowed(write, old, new, parts):
    assert old in GOOD
    with pytest.raises(WorkflowError) as caught:
        load_workflow(write(GOOD.replace(old, new)))
    for part in ["w.yaml", *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("postprocess.hysteresis.high", ["SECTION.ITEM.KEY=VALUE"]),
        ("postprocess.opening.shape=box", ["unknown key 'opening'", "allowed: hysteresis, closing, closing#2"]),
        (
            "postprocess.hysteresis.high=2",
            ["override postprocess.hysteresis.high=2: ", "--set", "less than or equal to 1"],
        ),
        ("postprocess.hysteresis.hgih=0.5", ["--set", "did you mean 'high'?"]),
        ("postprocess.hysteresis.high=[", ["not a YAML value"]),
        ("postprocess.hysteresis.per_slice=yes-please", ["hysteresis.per_slice = 'yes-please'", "valid boolean"]),
    ],
)
def test_a_bad_override_is_named(write, override, parts):
    with pytest.raises(WorkflowError) as caught:
        load_workflow(write(GOOD), [override])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "detect: expected a list"), ("- 1", "expected keys"), ("a: [", "not a YAML file"), ("detect: 3", "found 3")],
)
def test_what_is_no_workflow_is_refused(write, text, part):
    with pytest.raises(WorkflowError, match=part):
        load_workflow(write(text))


def test_a_missing_file_names_the_presets():
    with pytest.raises(WorkflowError, match=r"'v99'.*no preset.*v61\.1"):
        load_workflow("v99")


def test_the_frozen_baseline_takes_no_weight(write):
    path = write("detect:\n  - residual_band: {weight: 2}\npostprocess:\n  - threshold\n")
    with pytest.raises(WorkflowError, match=r"line 2: residual_band: unknown key 'weight'"):
        load_workflow(path)


def test_an_override_needs_parameters(write):
    path = write("detect:\n  - sheetness\npostprocess:\n  - threshold: 3\n")
    with pytest.raises(WorkflowError, match=r"line 4: threshold: expected parameters, found 3"):
        load_workflow(path, ["postprocess.threshold.value=0.5"])
