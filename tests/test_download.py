"""Downloads, from real HTTP servers on this machine: mirrors, resuming, checksums, the cache and local copies."""

import gzip
import hashlib
import os
import random
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import download
from download import Source, fetch

BODY = random.Random(0).randbytes(300_000)
NAME = "thing/data.bin"                                        # in the cache; its own name is data.bin
SETTING = "TEST_DATA_DIR"


class Host:
    """A web server that gives out body, in the way that a test asks for.

    status: answer that instead of 200. ranges: understands Range. stop_after: says the full length but breaks the
    connection off after so many bytes. zips: compresses for clients that accept it, ranges counting compressed bytes.
    """

    def __init__(self):
        self.body, self.status, self.ranges, self.stop_after, self.zips = BODY, 200, True, None, False
        self.wrong_range = False
        self.asked: list[str | None] = []                      # the Range header of each request
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                host.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/files/data.bin"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        body, status, headers = self.body, self.status, {}
        if self.zips and "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if status == 200 and start:
            status = 206 if start < len(body) else 416
            first = start - 1 if self.wrong_range else start
            sent = f"{first}-{len(body) - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {sent}/{len(body)}"
            body = body[first:]
        if status not in (200, 206):
            body = b"no such thing"
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if status in (200, 206) and self.stop_after is not None:
            body = body[: self.stop_after]
        request.wfile.write(body)
        request.close_connection = True


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    hosts = [Host(), Host()]
    yield hosts
    for host in hosts:
        host.http.shutdown()
        host.http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch, hosts):
    """An empty cache, and NAME coming from the two hosts; gives the path where the file will lie."""
    monkeypatch.setenv("QUERY_TO_FLOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(SETTING, raising=False)
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    offer(monkeypatch, [host.url for host in hosts])
    return tmp_path / "cache" / "thing" / "data.bin"


def offer(monkeypatch, urls: list[str]) -> None:
    monkeypatch.setattr(download, "SOURCES", {NAME: Source(tuple(urls), hashlib.sha256(BODY).hexdigest(), SETTING)})


def partial_of(path):
    return path.with_name(path.name + ".partial")


def assert_whole(path, cache) -> None:
    assert path == cache and path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["data.bin"]


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_file_is_fetched_once(cache, hosts):
    """Bug: a download at every start, or one that cannot start without a network although the file is there."""
    assert_whole(fetch(NAME), cache)
    for host in hosts:
        host.status = 500
    assert_whole(fetch(NAME), cache)
    assert hosts[0].asked == [None] and hosts[1].asked == []


@pytest.mark.parametrize("trouble", ["down", 404, 403, 500, 503, 204])
def test_the_next_host_helps(cache, hosts, monkeypatch, trouble):
    """Bug: the mirror is never asked, or an error page is kept as the file."""
    if trouble == "down":
        offer(monkeypatch, [f"http://127.0.0.1:{closed_port()}/data.bin", hosts[1].url])
    else:
        hosts[0].status = trouble
    assert_whole(fetch(NAME), cache)
    assert hosts[1].asked == [None]


def test_a_broken_download_goes_on_at_the_next_host(cache, hosts):
    """Bug: half a gigabyte fetched twice because the connection broke: the second host is asked for the rest only."""
    hosts[0].stop_after = 100_000
    assert_whole(fetch(NAME), cache)
    assert hosts[1].asked == ["bytes=100000-"]


def test_a_broken_download_goes_on_the_next_time(cache, hosts, monkeypatch):
    """Bug: a broken download counts as the file, or is thrown away."""
    offer(monkeypatch, [hosts[0].url])
    hosts[0].stop_after = 100_000
    with pytest.raises(ConnectionError, match=r"data\.bin"):
        fetch(NAME)
    assert not cache.exists() and partial_of(cache).read_bytes() == BODY[:100_000]
    with pytest.raises(ConnectionError):
        fetch(NAME)                                            # broken again, 100,000 bytes further
    hosts[0].stop_after = None
    assert_whole(fetch(NAME), cache)
    assert hosts[0].asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_host_that_knows_no_ranges_starts_again(cache, hosts):
    """Bug: the whole file appended to its own beginning, because the host answered 200 to a Range."""
    cache.parent.mkdir(parents=True)
    partial_of(cache).write_bytes(BODY[:1000])
    hosts[0].ranges = False
    assert_whole(fetch(NAME), cache)
    assert hosts[0].asked == ["bytes=1000-"] and hosts[1].asked == []


@pytest.mark.parametrize("left_over", [b"x" * 1000, BODY + b"x", b"x" * len(BODY), b""])
def test_a_bad_beginning_spoils_nothing(cache, hosts, monkeypatch, left_over):
    """Bug: what another host (or another version of the file) left behind makes the download from a good host fail."""
    offer(monkeypatch, [hosts[0].url])
    cache.parent.mkdir(parents=True)
    partial_of(cache).write_bytes(left_over)
    assert_whole(fetch(NAME), cache)
    assert hosts[0].asked == ([f"bytes={len(left_over)}-", None] if left_over else [None])


def test_a_whole_file_that_was_not_renamed_is_used(cache, hosts):
    """Bug: the process was killed just before the end; the host then answers 416, which is no failure."""
    cache.parent.mkdir(parents=True)
    partial_of(cache).write_bytes(BODY)
    assert_whole(fetch(NAME), cache)
    assert hosts[0].asked == [f"bytes={len(BODY)}-"] and hosts[1].asked == []


def test_416_without_a_beginning_is_the_hosts_error(cache, hosts):
    """Bug: a host that answers 416 to everything ends in "No such file: data.bin.partial" instead of being named."""
    hosts[0].status = hosts[1].status = 416
    with pytest.raises(ConnectionError, match=r"the host answered 416(?s:.*)the host answered 416"):
        fetch(NAME)


def test_a_host_that_sends_another_part_is_not_believed(cache, hosts):
    """Bug: bytes appended at the wrong place because nobody looked where the answer starts."""
    cache.parent.mkdir(parents=True)
    partial_of(cache).write_bytes(BODY[:1000])
    hosts[0].wrong_range = True
    assert_whole(fetch(NAME), cache)
    assert hosts[1].asked == ["bytes=1000-"]                   # and the good beginning was not lost


def test_resuming_from_a_host_that_compresses(cache, hosts, monkeypatch):
    """Bug: places in the compressed stream taken for places in the file (GitHub compresses text unless told not to)."""
    offer(monkeypatch, [hosts[0].url])
    hosts[0].zips, hosts[0].stop_after = True, 100_000
    with pytest.raises(ConnectionError):
        fetch(NAME)
    assert BODY.startswith(partial_of(cache).read_bytes())
    hosts[0].stop_after = None
    assert_whole(fetch(NAME), cache)
    assert hosts[0].asked[1:] == ["bytes=100000-"]


def test_a_wrong_checksum_is_refused_and_not_kept(cache, hosts):
    """Bug: a changed or poisoned file is used, now or at the next start."""
    hosts[0].body = hosts[1].body = bytes([BODY[0] ^ 1]) + BODY[1:]
    with pytest.raises(ConnectionError, match=r"sha256 (?s:.*)sha256 .*thrown away"):
        fetch(NAME)
    assert list(cache.parent.iterdir()) == []
    hosts[1].body = BODY                                       # a good mirror behind a bad host
    assert_whole(fetch(NAME), cache)


def test_the_error_names_file_hosts_and_setting(cache, hosts, monkeypatch):
    """Bug: "connection failed": which file, from where, and what can one do without a network?"""
    hosts[0].status = 404
    dead = f"http://127.0.0.1:{closed_port()}/data.bin"
    offer(monkeypatch, [hosts[0].url, dead])
    with pytest.raises(ConnectionError) as caught:
        fetch(NAME)
    message = str(caught.value)
    assert NAME in message and f"{hosts[0].url}: the host answered 404" in message and f"{dead}: Connect" in message
    assert f"set {SETTING} to the folder that holds data.bin" in message


def test_a_local_copy_needs_no_network(cache, hosts, monkeypatch, tmp_path):
    """Bug: the setting is ignored when the cache is full or empty, or the local file is copied about."""
    local, other = tmp_path / "local", tmp_path / "other"
    for folder in (local, other):
        folder.mkdir()
        (folder / "data.bin").write_bytes(b"mine")
    monkeypatch.setenv(SETTING, str(local))
    assert fetch(NAME) == local / "data.bin"
    assert fetch(NAME, other) == other / "data.bin"            # what the caller names comes first
    assert hosts[0].asked == hosts[1].asked == [] and not cache.exists()
    (local / "data.bin").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{SETTING} names {re.escape(str(local))}.*data\.bin does not exist"):
        fetch(NAME)


def test_the_file_may_appear_meanwhile(cache, hosts, monkeypatch):
    """Bug: two processes fetch the same file, the faster one renames it, and the slower one misses its part."""
    def rename(source, target):
        os.link(source, target)                                # the other process was here first
        os.unlink(source)
        raise FileNotFoundError(source)

    monkeypatch.setattr(download.os, "replace", rename)
    assert_whole(fetch(NAME), cache)
    assert hosts[1].asked == []


def test_the_real_sources_are_complete():
    """Bug: a source without a checksum, at plain http, without the hub's mirror, or of an unknown setting."""
    documented = {"TINYSHAKESPEARE_DIR", "GPT2_VOCAB_DIR", "GPT2_WEIGHTS_DIR"}
    for name, source in download.SOURCES.items():
        assert re.fullmatch(r"[0-9a-f]{64}", source.sha256), name
        assert source.urls and all(url.startswith("https://") for url in source.urls), name
        hub, mirror = ([url.removeprefix(host) for url in source.urls if url.startswith(host + "/")]
                       for host in (download.HUB, download.HUB_MIRROR))
        assert hub == mirror, name
        assert source.setting in documented, name
