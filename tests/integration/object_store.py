"""An S3 server and a web server on loopback, which can be told to fail."""

from __future__ import annotations

import functools
import logging
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("aiohttp_retry", reason="the extra http is not installed")
pytest.importorskip("moto.server", reason="moto's server is not installed")

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from nx47dask.files.remote import filesystem

BUCKET = "scrolls"
PRIVATE = "vault"
ACCESS_KEY, SECRET_KEY = "AKIALOOPBACK", "wJalrXUtnFEMIkeptOutOfEverything"
SIGNED = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/us-east-1/s3/aws4_request"
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


class Store:
    """Moto's S3 behind a door that counts requests, turns unsigned ones away from one bucket, and fails when told.

    Attributes
    ----------
    requests : list of (method, path, signed)
    refuse_every : int
        Answer every so many requests with 503 SlowDown; 0 for none.
    refused : int
    forbidden : str
        Answer 403 for paths that end in it.
    """

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        self.requests, self.refused, self.refuse_every, self.forbidden = [], 0, 0, ""

    def __call__(self, environ, start_response):
        method, path, signed = environ["REQUEST_METHOD"], environ["PATH_INFO"], "HTTP_AUTHORIZATION" in environ
        with self.lock:
            self.requests.append((method, path, signed))
            busy = self.refuse_every and len(self.requests) % self.refuse_every == 0
            self.refused += bool(busy)
        if busy:
            return self._refuse(
                environ, start_response, "503 Slow Down", "SlowDown", "Please reduce your request rate."
            )
        if (path.startswith(f"/{PRIVATE}") and not signed) or (self.forbidden and path.endswith(self.forbidden)):
            return self._refuse(environ, start_response, "403 Forbidden", "AccessDenied", "Access Denied")
        # Moto serves nobody unsigned.
        return self.moto({"HTTP_AUTHORIZATION": SIGNED, **environ}, start_response)

    def _refuse(self, environ, start_response, status, code, message):
        start_response(status, [("Content-Type", "application/xml")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [ERROR.format(code=code, message=message).encode()]


@contextmanager
def serving(server):
    """A server's URL while it runs in a thread."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def running_store():
    """One server for a module's tests, and its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store()
    with serving(make_server("127.0.0.1", 0, store, threaded=True)) as url:
        yield store, url


@pytest.fixture
def store(running_store, monkeypatch, tmp_path):
    """The S3 server with credentials in the environment and two empty buckets."""
    found, url = running_store
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
    }.items():
        monkeypatch.setenv(name, value)
    found.reset()
    fs = filesystem("s3")
    for bucket in (BUCKET, PRIVATE):
        if fs.exists(bucket):
            fs.rm(bucket, recursive=True)
        fs.mkdir(bucket)
    found.reset()
    return found


class _Handler(SimpleHTTPRequestHandler):
    """A plain web server of files, without ranges, that fails as its server says."""

    def do_GET(self):
        self.server.gets += 1
        if self.server.fails(self.path, self.server.gets):
            self.send_error(500)
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@contextmanager
def web_server(folder, fails=lambda path, number: False):
    """URL of a web server of a folder; ``fails(path, number of the GET)`` says which ones end in a 500."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    server.gets, server.fails = 0, fails
    with serving(server) as url:
        yield url
