"""The bundle for offline machines: what goes in, and that it is proved by installing it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from nx47dask.commands import bundle as kaggle
from nx47dask.errors import GateError, InputError
from nx47dask.version import __version__
from tests.integration.commands import command

MODULE = """\
import sys

def main():
    print({version!r} if "--version" in sys.argv else "no more than that")
"""


def write_wheel(folder, needs=()):
    """A wheel that stands for this package: it shows its version, and may need others."""
    info = f"nx47dask-{__version__}.dist-info"
    files = {
        "nx47dask.py": MODULE.format(version=__version__),
        f"{info}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                "Name: nx47dask",
                f"Version: {__version__}",
                *(f"Requires-Dist: {n}" for n in needs),
            ]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nnx47dask = nx47dask:main\n",
    }
    with zipfile.ZipFile(folder / f"nx47dask-{__version__}-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": "".join(f"{name},,\n" for name in files)}.items():
            wheel.writestr(name, text)


@pytest.fixture
def fake_wheels(monkeypatch):
    """Let pip "collect" a small wheel, nothing else; all that follows is as it is."""

    def use(**options):
        run = kaggle._run

        def collect_or_run(arguments, failure, environment=None):
            if "wheel" not in arguments:
                return run(arguments, failure, environment)
            write_wheel(kaggle.Path(arguments[arguments.index("--wheel-dir") + 1]), **options)
            return ""

        monkeypatch.setattr(kaggle, "_run", collect_or_run)
        monkeypatch.setattr(kaggle, "installed_requirements", lambda without: [f"nx47dask=={__version__}"])

    return use


def make(out, **options):
    return kaggle.bundle(out, console=Console(quiet=True), **options)


def install(bundle):
    environment = kaggle._offline_environment(sys.executable)
    done = subprocess.run(
        ["bash", bundle / "install.sh", "--dry-run", "--quiet"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=os.sep,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_bundle_has_all_and_installs_without_an_index(fake_wheels, tmp_path):
    fake_wheels(needs=["torch"])
    bundle = make(tmp_path / "new" / "bundle", without_torch=True)
    assert sorted(path.name for path in bundle.iterdir()) == ["SHA256SUMS", "install.sh", "requirements.txt", "wheels"]
    assert (bundle / "requirements.txt").read_text() == f"nx47dask=={__version__}\n"
    sums = dict(line.split("  ")[::-1] for line in (bundle / "SHA256SUMS").read_text().splitlines())
    wheel = f"wheels/nx47dask-{__version__}-py3-none-any.whl"
    assert list(sums) == ["requirements.txt", wheel]
    assert sums[wheel] == hashlib.sha256((bundle / wheel).read_bytes()).hexdigest()
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
    assert install(bundle)[0] == 0
    with (bundle / wheel).open("ab") as stream:
        stream.write(b"x")
    code, said = install(bundle)
    assert code == 1
    assert f"{wheel}: FAILED" in said


def test_a_bundle_that_does_not_install_is_not_there(fake_wheels, tmp_path):
    fake_wheels(needs=["absent-thing>=2"])
    with pytest.raises(GateError, match=r"install\.sh.* ended with exit code 1:(?s:.*)absent-thing>=2"):
        make(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_installs_something_else_is_not_there(fake_wheels, tmp_path, monkeypatch):
    fake_wheels()
    run = kaggle._run
    monkeypatch.setattr(
        kaggle, "_run", lambda arguments, *rest: run(arguments, *rest) if "wheel" in arguments else "0.0.9\n"
    )
    with pytest.raises(GateError, match=rf"the bundle installs version 0\.0\.9, here is {__version__}"):
        make(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_what_pip_cannot_find_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(kaggle, "installed_requirements", lambda without: ["nx47dask-absent==1"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match=r"pip wheel ended with exit code 1:(?s:.*)nx47dask-absent==1"):
        make(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert command("kaggle", "bundle", "--out", tmp_path) == 2
    assert f"--out {tmp_path}: exists and is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_requirements_are_those_of_the_package_as_installed():
    pinned = {Requirement(text).name: text for text in kaggle.installed_requirements()}
    assert pinned["nx47dask"] == f"nx47dask=={__version__}"
    assert {"dask", "numpy", "torch", "zarr", "sympy"} <= set(pinned)
    assert not {"pytest", "dask-image", "ruff"} & set(pinned), "extras are not needed to run"
    without = {Requirement(text).name for text in kaggle.installed_requirements(["Torch"])}
    assert not {"torch", "sympy", "mpmath"} & without
    assert {"numpy", "jinja2"} <= without


def test_requirements_follow_markers_and_extras(tmp_path, monkeypatch):
    metadata = {
        "fake-a": ['fake-b[more]; python_version > "3"', 'fake-c; sys_platform == "none"', 'fake-d; extra == "test"'],
        "fake-b": ['fake-e; extra == "more"', 'fake-f; extra == "most"', "fake-a"],
        "fake-e": [],
    }
    for name, needs in metadata.items():
        folder = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1", *(f"Requires-Dist: {n}" for n in needs)]
        (folder / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(kaggle, "PACKAGE", "fake-a")
    assert kaggle.installed_requirements() == ["fake-a==1", "fake-b==1", "fake-e==1"]
    monkeypatch.setattr(kaggle, "PACKAGE", "fake-c")
    with pytest.raises(InputError, match="fake-c is not installed for"):
        kaggle.installed_requirements()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_bundle(tmp_path):
    assert command("kaggle", "bundle", "--out", tmp_path / "bundle") == 0
    names = {path.name.split("-")[0] for path in (tmp_path / "bundle" / "wheels").iterdir()}
    assert {"nx47dask", "torch", "numpy", "zarr"} <= names
    assert len(names) == len(kaggle.installed_requirements())
    assert install(tmp_path / "bundle")[0] == 0
