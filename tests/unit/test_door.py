"""What a contributor meets first: workflows, hooks, requirements and templates agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def steps(job):
    return [step.get("run", "") for step in job["steps"]]


def python_of(job):
    return next(step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", ""))


def test_tested_pythons_are_those_of_the_classifiers():
    jobs = read(".github/workflows/test.yml")["jobs"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert jobs["tested-versions"]["strategy"]["matrix"]["python"] == classified
    assert PROJECT["requires-python"] == f">={classified[0]}"
    assert python_of(jobs["lowest-versions"]) == classified[0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_scripts_of_workflows_exist(path):
    scripts = [
        name for job in read(path)["jobs"].values() for run in steps(job) for name in re.findall(r"bash (\S+)", run)
    ]
    assert scripts
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


def test_hooks_are_the_checks_of_the_test_command():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    commands = (ROOT / "workflows" / "test.sh").read_text().splitlines()
    assert commands[commands.index(entries[0]) :][: len(entries)] == entries
    assert {command.split()[0] for command in commands if re.match(r"(ruff|mypy)\b", command)} == {"ruff", "mypy"}
    assert len(entries) == sum(bool(re.match(r"(ruff|mypy)\b", command)) for command in commands)


def test_every_requirement_has_a_lowest_version():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = [Requirement(text) for group in groups for text in group]
    assert [str(item) for item in requirements if [bound.operator for bound in item.specifier] != [">="]] == []


def test_a_requirement_has_one_lowest_version():
    bounds = {}
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for requirement in map(Requirement, group):
            bounds.setdefault(requirement.name.lower(), set()).add(str(requirement.specifier))
    assert {name: bound for name, bound in bounds.items() if len(bound) > 1} == {}


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_issue_forms_ask_something(path):
    form = read(path)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {"name", "description", "body"} <= set(form)
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert any(field.get("validations", {}).get("required") for field in fields)
