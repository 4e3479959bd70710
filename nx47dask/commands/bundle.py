"""Make a bundle of wheels for machines without a network, such as the notebooks of a code competition."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from rich.console import Console

from nx47dask.errors import GateError, InputError, Nx47Error
from nx47dask.files.atomic import sha256_file

__all__ = ["bundle", "installed_requirements"]

PACKAGE = "nx47dask"
TORCH = "torch"
SHOWN_LINES = 6
"""Last lines of a failed command that its error shows."""

INSTALL = """\
#!/usr/bin/env bash
# Installs {package} {version} without a network: bash install.sh [pip options]
# For Python {python} on {system}; PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
python="${{PYTHON:-python3}}"
if ! "$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "{python}")'; then
  echo "this bundle is for Python {python}; set PYTHON to one (this is $("$python" --version))" >&2
  exit 2
fi
sha256sum --check --quiet SHA256SUMS
"$python" -m pip install --no-index --find-links wheels --requirement requirements.txt "$@"
"""


def bundle(out: Path, *, without_torch: bool = False, console: Console | None = None) -> Path:
    """Collect the wheels that an offline machine needs to install nx47dask as it is installed here, and try them.

    The bundle is a folder with ``wheels/``, ``requirements.txt`` (exact versions), ``SHA256SUMS`` and ``install.sh``.
    It fits the Python version and the system that it is made on. It is tried out: ``install.sh`` runs for a fresh
    virtual environment without an index, and then the installed command runs there. Only then the folder gets its name.

    Parameters
    ----------
    out : Path
        The bundle; a folder that does not exist yet, or is empty.
    without_torch : bool
        Leave out torch, and packages that only torch needs, for a machine that has it; the trial runs without it.
    console : rich.console.Console, optional
        Where progress goes; by default standard error.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    InputError
        The folder is not empty, nx47dask or a package that it needs is not installed here, or a wheel cannot be
        fetched or built.
    GateError
        The wheels do not install, or the installed command does not run.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder", hint="choose another --out")
    console = console or Console(stderr=True)
    requirements = installed_requirements(without=[TORCH] if without_torch else [])
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        console.print(f"collecting {len(requirements)} wheels", highlight=False)
        _collect(folder, requirements)
        console.print("installing them into a fresh environment without an index", highlight=False)
        _prove(folder, without_torch)
        folder.rename(out)
    return out


def installed_requirements(without: Collection[str] = ()) -> list[str]:
    """List nx47dask and all that it needs as ``name==version``, as installed here, sorted.

    Parameters
    ----------
    without : collection of str
        Packages to leave out, with the packages that only they need.

    Raises
    ------
    InputError
        A package is not installed.
    """
    left_out = {canonicalize_name(name) for name in without}
    pinned: dict[NormalizedName, str] = {}
    waiting = [Requirement(PACKAGE)]
    visited: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in left_out or str(wanted) in visited:
            continue
        visited.add(str(wanted))
        package = _distribution(name)
        pinned[name] = f"{name}=={package.version}"
        waiting += _needs(package, wanted.extras)
    return sorted(pinned.values())


def _needs(package: Distribution, extras: set[str]) -> list[Requirement]:
    """List the requirements of an installed package that apply here."""
    requirements = [Requirement(text) for text in package.requires or []]
    environments = [{"extra": extra} for extra in ("", *extras)]
    return [
        needed
        for needed in requirements
        if needed.marker is None or any(needed.marker.evaluate(given) for given in environments)
    ]


def _distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise InputError(
            f"{name} is not installed for {sys.executable}, and a bundle has what is installed",
            hint=f"pip install {PACKAGE} first",
        ) from error


def _collect(bundle: Path, requirements: Sequence[str]) -> None:
    """Fetch or build the wheels, and write requirements, ``install.sh`` and checksums."""
    wheels = bundle / "wheels"
    wheels.mkdir(parents=True)
    own = f"{PACKAGE}=={_distribution(PACKAGE).version}"
    sources = [_own_source() if requirement == own else requirement for requirement in requirements]
    _run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(wheels), *sources], InputError)
    (bundle / "requirements.txt").write_text(
        "".join(f"{requirement}\n" for requirement in requirements), encoding="utf-8"
    )
    (bundle / "install.sh").write_text(
        INSTALL.format(
            package=PACKAGE,
            version=_distribution(PACKAGE).version,
            python="{}.{}".format(*sys.version_info[:2]),
            system=f"{platform.system()} {platform.machine()}",
        ),
        encoding="utf-8",
    )
    files = [bundle / "requirements.txt", *sorted(wheels.iterdir())]
    sums = "".join(f"{sha256_file(path)}  {path.relative_to(bundle)}\n" for path in files)
    (bundle / "SHA256SUMS").write_text(sums, encoding="utf-8")


def _own_source() -> str:
    """Return the source of this package for pip: the folder that it was installed from, else its release."""
    own = _distribution(PACKAGE)
    recorded = json.loads(own.read_text("direct_url.json") or "{}")
    return str(recorded["url"]) if "dir_info" in recorded else f"{PACKAGE}=={own.version}"


def _prove(bundle: Path, without_torch: bool) -> None:
    """Install the bundle into a fresh environment without an index, and run the command there."""
    with TemporaryDirectory() as scratch:
        python = Path(scratch) / "bin" / "python"
        environment = _offline_environment(python)
        _run([sys.executable, "-m", "venv", "--without-pip", scratch], GateError, environment)
        if without_torch:
            _stand_in(Path(scratch), TORCH)
        _run(["bash", str(bundle / "install.sh"), "--quiet"], GateError, environment)
        command = str(python.with_name(PACKAGE))
        shown = _run([command, "--version"], GateError, environment).strip()
        if shown != _distribution(PACKAGE).version:
            raise GateError(f"the bundle installs version {shown}, here is {_distribution(PACKAGE).version}")
        _run([command, "steps"], GateError, environment)


def _stand_in(environment: Path, name: str) -> None:
    """Make pip believe that a package of the offline machine is installed, so that it needs all others."""
    version = _distribution(name).version
    (packages,) = environment.glob("lib/python*/site-packages")
    metadata = packages / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def _offline_environment(python: Path) -> dict[str, str]:
    """Return variables that let pip install into an environment, without settings that name an index or Python."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    return {**kept, "PYTHON": sys.executable, "PIP_PYTHON": str(python), "PIP_CONFIG_FILE": os.devnull}


def _run(command: Sequence[str], failure: type[Nx47Error], environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output; raise its last lines as an error when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-SHOWN_LINES:]
        shown = "\n  ".join([f"{' '.join(command[:4])} ended with exit code {done.returncode}:", *lines])
        raise failure(f"no bundle was made: {shown}")
    return done.stdout
