"""Downloads against a server on this machine: resumed, mirrored, checked, and told apart when they fail."""

import errno
import hashlib
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from filelock import FileLock

from datasets import download as module
from datasets.download import download, verify
from registry import Source
from registry.errors import DataDamagedError, DataMissingError

CONTENT = np.random.default_rng(0).integers(0, 256, 700_000, dtype=np.uint8).tobytes()
HTML = b"<!DOCTYPE html><html>please log in</html>"


class Handler(BaseHTTPRequestHandler):
    """Answers by path, and notes each request."""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.seen.append((self.path, start))
        getattr(self, self.path.strip("/").replace("-", "_"))(start)

    def good(self, start, *, status=None, cut=None, content=CONTENT, kind="application/octet-stream"):
        if start >= len(content):
            return self.reply(416, b"", {})
        headers = {"Content-Length": str(len(content) - start), "Content-Type": kind}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.reply(status or (206 if start else 200), content[start:cut], headers)

    def cut_once(self, start):
        self.good(start, cut=300_000 if start == 0 else None)

    def cut_always(self, start):
        self.good(start, cut=start + 100_000)

    def deaf(self, start):
        self.reply(200, CONTENT, {"Content-Length": str(len(CONTENT))})

    def wrong_range(self, start):
        headers = {"Content-Length": str(len(CONTENT)), "Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}
        self.reply(206 if start else 200, CONTENT, headers)

    def other(self, start):
        self.good(start, content=CONTENT[::-1])

    def short(self, start):
        self.good(start, content=CONTENT[:1000])

    def page(self, start):
        self.reply(200, HTML, {"Content-Type": "text/html", "Content-Length": str(len(HTML))})

    def missing(self, start):
        self.reply(404, HTML, {"Content-Type": "text/html", "Content-Length": str(len(HTML))})

    def busy_once(self, start):
        if len(self.server.seen) == 1:
            self.reply(503, b"", {"Content-Length": "0"})
        else:
            self.good(start)

    def moved(self, start):
        self.reply(302, b"", {"Location": "/good", "Content-Length": "0"})

    def huge(self, start):
        self.reply(200, b"x", {"Content-Length": str(10**18)})

    def reply(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(address, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "*")
    address.seen.clear()
    return address


def source(server, *paths, **changes) -> Source:
    base = f"http://127.0.0.1:{server.server_port}"
    known = {"md5": hashlib.md5(CONTENT).hexdigest(), "size": len(CONTENT)}
    return Source(filename="tiny/tiny.npz", urls=tuple(f"{base}/{path}" for path in paths), **(known | changes))


def left_over(root) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_file_comes_whole_and_progress_is_told(server, tmp_path):
    steps = []
    path = download(source(server, "good"), tmp_path / "data", lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "data/tiny/tiny.npz" and path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT)) and steps == sorted(steps) and len(steps) > 1
    assert left_over(tmp_path) == ["tiny.npz"]


def test_a_right_file_is_not_fetched_again(server, tmp_path):
    path = download(source(server, "good"), tmp_path)
    download(source(server, "good"), tmp_path)
    assert len(server.seen) == 1
    path.write_bytes(b"damaged")
    assert download(source(server, "good"), tmp_path).read_bytes() == CONTENT


def test_a_cut_connection_is_resumed_where_it_ended(server, tmp_path):
    assert download(source(server, "cut-once"), tmp_path).read_bytes() == CONTENT
    assert server.seen == [("/cut-once", 0), ("/cut-once", 300_000)]


def test_the_next_call_goes_on_with_what_was_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    with pytest.raises(DataMissingError, match=r"ended after 200000 of 700000 bytes.*put it at"):
        download(source(server, "cut-always"), tmp_path)
    assert left_over(tmp_path) == ["tiny.npz.part"]
    server.seen.clear()
    assert download(source(server, "good"), tmp_path).read_bytes() == CONTENT
    assert server.seen == [("/good", 200_000)]


def test_the_next_address_goes_on_with_what_the_first_gave(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    assert download(source(server, "cut-always", "good"), tmp_path).read_bytes() == CONTENT
    assert server.seen == [("/cut-always", 0), ("/good", 100_000)]


def test_a_server_that_cannot_resume_sends_it_all(server, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/tiny.npz.part").write_bytes(CONTENT[:1234])
    assert download(source(server, "deaf"), tmp_path).read_bytes() == CONTENT


def test_a_part_of_another_file_is_thrown_away(server, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/tiny.npz.part").write_bytes(b"x" * 1234)
    assert download(source(server, "good"), tmp_path).read_bytes() == CONTENT
    assert server.seen == [("/good", 1234), ("/good", 0)]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"], ids=["whole", "too long"])
def test_a_part_with_nothing_left_to_fetch(server, tmp_path, part):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/tiny.npz.part").write_bytes(part)
    assert download(source(server, "good"), tmp_path).read_bytes() == CONTENT


def test_nothing_is_resumed_without_a_checksum(server, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/tiny.npz.part").write_bytes(b"x" * 1234)
    assert download(source(server, "good", md5=None), tmp_path).read_bytes() == CONTENT
    assert server.seen == [("/good", 0)]


def test_a_mirror_takes_over(server, tmp_path):
    bad = ("missing", "page", "other", "short", "good")
    assert download(source(server, *bad), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.seen] == [f"/{name}" for name in bad]


def test_a_busy_server_is_asked_again_and_a_redirect_followed(server, tmp_path):
    assert download(source(server, "busy-once"), tmp_path / "a").read_bytes() == CONTENT
    assert download(source(server, "moved"), tmp_path / "b").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "path, kind, told",
    [
        ("missing", DataMissingError, "404"),
        ("page", DataMissingError, "web page"),
        ("other", DataDamagedError, "expected MD5"),
        ("short", DataDamagedError, "truncated: expected 700000 bytes, got 1000"),
    ],
)
def test_failures_name_the_address_and_the_remedy(server, tmp_path, path, kind, told):
    with pytest.raises(kind, match=told) as error:
        download(source(server, path), tmp_path)
    assert f"127.0.0.1:{server.server_port}/{path}" in str(error.value)
    assert f"put it at {tmp_path / 'tiny/tiny.npz'}" in str(error.value)
    assert left_over(tmp_path) == []


def test_a_web_page_leaves_what_came_before(server, tmp_path):
    (tmp_path / "tiny").mkdir()
    part = tmp_path / "tiny/tiny.npz.part"
    part.write_bytes(CONTENT[:5000])
    with pytest.raises(DataMissingError, match="web page"):
        download(source(server, "page"), tmp_path)
    assert part.read_bytes() == CONTENT[:5000]


def test_other_bytes_than_asked_for_are_refused(server, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/tiny.npz.part").write_bytes(CONTENT[:5000])
    with pytest.raises(DataMissingError, match="expected the bytes from 5000"):
        download(source(server, "wrong-range"), tmp_path)


def test_no_server_at_all(server, tmp_path):
    dead = Source(filename="tiny.npz", urls=("http://127.0.0.1:9/tiny.npz",), md5="0" * 32)
    with pytest.raises(DataMissingError, match=r"127\.0\.0\.1:9/tiny\.npz: ConnectionError.*check the connection"):
        download(dead, tmp_path)


def test_without_an_address_the_text_says_how(tmp_path):
    with pytest.raises(DataMissingError, match="ask the owner"):
        download(Source(filename="tiny.npz", how="ask the owner"), tmp_path)


def test_too_little_room_is_told_before_it_is_used(server, tmp_path):
    with pytest.raises(DataMissingError, match=r"disk of .* is full .*MEDROBUST_DATA"):
        download(source(server, "huge"), tmp_path)
    assert left_over(tmp_path) == []


def test_a_disk_that_fills_up_is_told(server, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(DataMissingError, match="make room and repeat"):
        download(source(server, "good"), tmp_path)


def test_a_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "tiny").write_bytes(b"a file where the folder should be")
    with pytest.raises(DataMissingError, match=r"cannot write .*MEDROBUST_DATA"):
        download(source(server, "good"), tmp_path)


def test_verify(server, tmp_path):
    wanted = source(server, "good")
    with pytest.raises(DataMissingError, match=r"fetch it from http://127"):
        verify(wanted, tmp_path)
    path = tmp_path / "tiny.npz"  # beside the others, without a folder of its own
    path.write_bytes(CONTENT)
    assert verify(wanted, tmp_path) == path
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataDamagedError, match="truncated"):
        verify(wanted, tmp_path)


def test_verify_looks_into_the_folder_of_the_data_set(server, tmp_path):
    path = tmp_path / "tiny_64/tiny.npz"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert verify(source(server, "good"), tmp_path, "tiny_64") == path


def test_a_file_that_another_process_fetches_is_waited_for(server, tmp_path, caplog):
    target, found = tmp_path / "tiny/tiny.npz", []
    target.parent.mkdir()
    with FileLock(target.with_name(".tiny.npz.lock"), thread_local=False), caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=lambda: found.append(download(source(server, "good"), tmp_path)))
        thread.start()
        deadline = time.monotonic() + 20
        while "waiting for it" not in caplog.text and not found and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not found
        target.write_bytes(CONTENT)
    thread.join(20)
    assert found == [target] and server.seen == []


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks"), NotImplementedError("no flock"), None])
def test_with_or_without_locks_a_file_is_fetched_and_no_lock_is_left_held(server, tmp_path, monkeypatch, error):
    def refuse(self, *arguments, **options):
        raise error

    with monkeypatch.context() as patched:
        if error is not None:
            patched.setattr(FileLock, "acquire", refuse)
        assert download(source(server, "good"), tmp_path).read_bytes() == CONTENT
    with FileLock(tmp_path / "tiny/.tiny.npz.lock", timeout=0) as free:
        assert free.is_locked
