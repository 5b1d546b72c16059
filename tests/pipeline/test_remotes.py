"""Remotes as the pages set them up: a folder, and servers of S3 and WebDAV on the loopback."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.request import Request, urlopen
from xml.etree import ElementTree

import pytest
from cheroot import wsgi
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from wsgidav.wsgidav_app import WsgiDAVApp

from tests.pipeline.small_project import Project, printed, run_printed
from tests.pipeline.tiny_project import objects, tiny_project

ADD, MODIFY, PUSH, TOKEN, ELSEWHERE, PUSH_AGAIN = printed("docs/using.md", "Remotes")
DOCUMENTED = "s3://bucket/mnist"
# More than the sockets between two processes hold: a server that does not read keeps a push from ending.
FILES = {"data/large": bytes(16 << 20), "data/small": b"small", "alone": b"alone"}
LARGE = hashlib.md5(FILES["data/large"]).hexdigest()
SECRET = "secret-of-the-environment"
# A push to a folder has no server to wait for: it ends itself with a half-written file.
KILLED_PUSH = f"""
import os, signal
from pathlib import Path
from dvc.cli import main
from dvc_objects.fs import local

copy = local.copyfile
def half(source, target, **options):
    copy(source, target, **options)
    if {LARGE[2:]!r} in str(source):
        os.truncate(target, 1000)
        os.kill(os.getpid(), signal.SIGKILL)

local.copyfile = half
main(["push"])
"""
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Server:
    """A WSGI application that wants the secret, and lets a first upload of the large file hang until ``killed``."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.halfway, self.killed = Event(), Event()

    def __call__(self, request: dict[str, Any], start: Any) -> Iterable[bytes]:  # noqa: ANN401
        if SECRET not in request.get("HTTP_AUTHORIZATION", ""):
            start("403 Forbidden", [])
            return []
        if request["REQUEST_METHOD"] == "PUT" and int(request.get("CONTENT_LENGTH") or 0) > 1 << 20:
            self.halfway.set()
            assert self.killed.wait(60)
        return self.application(request, start)


class Remote:
    """A remote at ``url``, whose folder or bucket is there; ``stored`` are its objects, ``damage`` changes one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shelf"
        self.folder.mkdir()
        self.url, self.elsewhere = str(self.folder), str(folder / "another")

    def killed_push(self, project: Project) -> None:
        ended = project.run(sys.executable, "-c", KILLED_PUSH, check=False)
        assert ended.returncode == -9, ended.stderr

    def stored(self) -> dict[str, bytes]:
        return {name: path.read_bytes() for name, path in objects(self.folder).items()}

    def damage(self, name: str) -> None:
        path = objects(self.folder)[name]
        path.chmod(0o644)
        path.write_bytes(b"?")
        # DVC would look at it once more, were it writable.
        path.chmod(0o444)


class Served(Remote):
    """One that a server has."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def killed_push(self, project: Project) -> None:
        with project.start(sys.executable, "-m", "dvc", "push") as push:
            assert self.server.halfway.wait(60)
            push.kill()
            push.communicate()
        self.server.killed.set()


class WebDav(Served):
    def __init__(self, folder: Path, server: Server, address: str) -> None:
        super().__init__(server)
        self.folder = folder / "mnist"
        self.url, self.elsewhere = f"webdav://{address}/mnist", f"webdav://{address}/mnist-2"


class S3(Served):
    def __init__(self, server: Server, address: str) -> None:
        super().__init__(server)
        self.url, self.elsewhere, self.address = DOCUMENTED, "s3://bucket/mnist-2", f"http://{address}/bucket"
        self.ask("PUT", "")

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        scope = f"AWS4-HMAC-SHA256 Credential={SECRET}/20200101/us-east-1/s3/aws4_request"
        with urlopen(Request(self.address + path, content, {"Authorization": scope}, method=method)) as answer:
            read: bytes = answer.read()
        return read

    def keys(self) -> dict[str, str]:
        listed = [element.text or "" for element in ElementTree.fromstring(self.ask("GET", "")).findall(".//{*}Key")]
        return {"".join(key.split("/")[-2:]): f"/{key}" for key in listed}

    def stored(self) -> dict[str, bytes]:
        return {name: self.ask("GET", key) for name, key in self.keys().items()}

    def damage(self, name: str) -> None:
        self.ask("PUT", self.keys()[name], b"?")


def whole(application: Application) -> Application:
    """The application without uploads that end early: S3 refuses them (error IncompleteBody), its stand-in does not."""

    def answer(request: dict[str, Any], start: Any) -> Iterable[bytes]:  # noqa: ANN401
        length = int(request.get("CONTENT_LENGTH") or 0)
        body = request["wsgi.input"].read(length)
        if len(body) < length:
            start("400 Bad Request", [])
            return []
        return application(request | {"wsgi.input": BytesIO(body)}, start)

    return answer


@contextmanager
def served(application: Application) -> Iterator[tuple[Server, str]]:
    server = Server(application)
    host = wsgi.Server(("127.0.0.1", 0), server)
    host.prepare()
    thread = Thread(target=host.serve)
    thread.start()
    try:
        yield server, f"127.0.0.1:{host.bind_addr[1]}"
    finally:
        server.killed.set()
        host.stop()
        thread.join()


@pytest.fixture
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """Of the kind that the test names. What it wants to know of the user is in the environment alone."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    if request.param == "folder":
        yield Remote(tmp_path)
    elif request.param == "webdav":
        (tmp_path / "dav/mnist").mkdir(parents=True)
        (tmp_path / "dav/mnist-2").mkdir()
        shelf = {"/": str(tmp_path / "dav")}
        anybody = {"user_mapping": {"*": True}}
        application = WsgiDAVApp({"provider_mapping": shelf, "simple_dc": anybody, "logging": {"enable": False}})
        monkeypatch.setenv("WEBDAV_TOKEN", SECRET)
        with served(application) as (server, address):
            yield WebDav(tmp_path / "dav", server, address)
    else:
        with served(whole(DomainDispatcherApplication(create_backend_app))) as (server, address):
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
            (tmp_path / "nothing").touch()
            for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
                monkeypatch.setenv(name, str(tmp_path / "nothing"))
            yield S3(server, address)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with data in DVC's cache and the remote of the page."""
    project = tiny_project(tmp_path_factory.mktemp("prepared") / "project", FILES)
    project.dvc("add", "--quiet", "data", "alone")
    for command in (ADD, MODIFY):
        run_printed(project, command)
    return project.folder


def set_up(project: Project, remote: Remote) -> None:
    """The page's remote is the test's."""
    config = project.folder / ".dvc/config"
    assert DOCUMENTED in config.read_text() and "verify = true" in config.read_text()
    config.write_text(config.read_text().replace(DOCUMENTED, remote.url))
    if isinstance(remote, WebDav):
        run_printed(project, TOKEN)
    assert SECRET not in config.read_text()
    project.commit()


def pulled(project: Project, folder: Path) -> tuple[int, dict[str, bytes]]:
    """The status of 'dvc pull' in a fresh clone, and the data that it has then."""
    project.run("git", "clone", "--quiet", ".", str(folder))
    clone = Project(folder, folder)
    status = clone.dvc("pull", check=False).returncode
    return status, {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


@pytest.mark.parametrize("remote", ["folder", "s3", "webdav"], indirect=True)
def test_a_push_is_done_again_after_a_kill_and_damage_is_refused_and_mended(
    remote: Remote, prepared: Path, tmp_path: Path
) -> None:
    project = Project(shutil.copytree(prepared, tmp_path / "project"), tmp_path)
    set_up(project, remote)
    remote.killed_push(project)
    run_printed(project, PUSH)
    stored = remote.stored()
    assert stored.keys() == objects(project.folder / ".dvc/cache").keys()
    if not isinstance(remote, WebDav):  # A WebDAV server may keep the half of a file that has come.
        assert [name for name, content in stored.items() if hashlib.md5(content).hexdigest() != name[:32]] == []

    remote.damage(LARGE)
    status, data = pulled(project, tmp_path / "refused")
    assert status != 0 and "data/large" not in data

    run_printed(project, ELSEWHERE.replace(f"{DOCUMENTED}-2", remote.elsewhere))
    run_printed(project, PUSH_AGAIN)
    project.commit()
    assert pulled(project, tmp_path / "whole") == (0, FILES)
