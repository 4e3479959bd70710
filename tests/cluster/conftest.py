"""What several of these tests need."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import tifffile

from tests.conftest import sheets
from tests.integration.commands import straight_run, write_workflow


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate, its own authority, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    files = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=nx47dask"),
            *("-out", files["cert"], "-keyout", files["key"]),
        ],
        check=True,
        capture_output=True,
    )
    return files


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """A small scan, with a workflow beside it."""
    path = tmp_path_factory.mktemp("connect") / "scan.tif"
    tifffile.imwrite(path, sheets((32, 48, 40)), photometric="minisblack")
    write_workflow(path.parent)
    return path


@pytest.fixture(scope="session")
def expected(scan):
    """What a run without a cluster writes."""
    return straight_run([scan], scan.with_name("serial"), 40)[0]
