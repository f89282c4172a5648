"""Downloads: whole or not at all."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from visreg.datasets import files
from visreg.errors import DataError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def mirror(tmp_path):
    """Serve the folder ``served`` from this machine."""
    served = tmp_path / "served"
    served.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def md5(content):
    return hashlib.md5(content).hexdigest()


def test_the_first_whole_file_is_taken(mirror, tmp_path):
    (tmp_path / "served" / "good").mkdir()
    (tmp_path / "served" / "good" / "data.gz").write_bytes(b"whole")
    (tmp_path / "served" / "data.gz").write_bytes(b"damaged")
    files.download("data.gz", md5(b"whole"), [f"{mirror}none/", mirror, f"{mirror}good/"], tmp_path / "a" / "b")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "a" / "b").iterdir()] == [("data.gz", b"whole")]


def test_every_mirrors_reason_is_told_and_nothing_is_left(mirror, tmp_path):
    (tmp_path / "served" / "data.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"data.gz cannot be downloaded: .*/none/: .*404.*; .*: expected md5 \w+, got"):
        files.download("data.gz", md5(b"whole"), [f"{mirror}none/", mirror], tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


def test_reachable(mirror, no_network_name):
    assert files.reachable(mirror)
    assert not files.reachable("http://127.0.0.1:9/")
    assert not files.reachable(no_network_name)


def test_where_there_is_a_proxy_it_is_the_one_to_answer(mirror, monkeypatch):
    monkeypatch.setattr(files.urllib.request, "getproxies", lambda: {"https": mirror})
    assert files.reachable("https://never.invalid/")
    assert not files.reachable("http://127.0.0.1:9/")


@pytest.fixture
def no_network_name(monkeypatch):
    """Let the name service of one host never answer."""
    answer = threading.Event()
    connect = files.socket.create_connection

    def create_connection(address, timeout):
        if address[0] == "never.invalid":
            answer.wait(60)
        return connect(address, timeout)

    monkeypatch.setattr(files, "PATIENCE", 0.2)
    monkeypatch.setattr(files.socket, "create_connection", create_connection)
    yield "https://never.invalid/"
    answer.set()


def test_one_process_fetches_and_all_learn_of_its_failure(monkeypatch):
    calls = []
    files.fetch_once(False, lambda: calls.append("called"))
    assert calls == []
    files.fetch_once(True, lambda: calls.append("called"))
    assert calls == ["called"]

    monkeypatch.setattr(files.dist, "local_rank", lambda: 1)
    monkeypatch.setattr(files.dist, "gather", lambda value: [value, True if value is True else "rank 0 failed"])
    with pytest.raises(DataError, match="rank 0 failed"):
        files.fetch_once(True, lambda: calls.append("called"))
    assert calls == ["called"]


def test_what_is_missing_beside_what_is_there_is_looked_for_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISREG_DATA", str(tmp_path / "data"))
    (tmp_path / "pets").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path}/pets/labels: no such folder"):
        files.located("./pets/labels")
    with pytest.raises(DataError, match=f"^{tmp_path}/data/cars/labels: no such folder"):
        files.located("cars/labels")
