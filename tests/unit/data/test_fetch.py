"""Fetching, against a package index on this machine and pip and npm as they are installed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.data import fetch as fetch_module
from danlu.data.fetch import fetch
from danlu.data.samples import SAMPLES, Archive, Sample, find_sample, sample_folder

FILENAME = "tiny-1.0.tar.gz"


def sdist(prefix: str) -> bytes:
    """An archive with a set-up program that leaves a mark if it is ever run; over 2 MiB and not compressible."""
    setup = b"import pathlib; pathlib.Path(__file__).with_name('ran').touch(); raise SystemExit('was run')"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        noise = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(80_000))
        for name, content in (("data.txt", "好\n".encode()), ("noise.bin", noise), ("setup.py", setup)):
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


CONTENT = sdist("tiny-1.0/")


class Index(ThreadingHTTPServer):
    """A package index with one package, whose faults can be set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {FILENAME: CONTENT, "tiny-1.0.tgz": CONTENT}
        self.cut_after: int | None = None
        self.ranges = True
        self.as_json = False
        self.file_status = 200
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[1]
        self.server.asked.append((self.path, self.headers["Range"]))
        if self.path == "/simple/tiny/":
            if self.server.as_json:
                page = {"meta": {"api-version": "1.0"}, "name": "tiny",
                        "files": [{"filename": FILENAME, "url": f"/files/{FILENAME}", "hashes": {}}]}  # fmt: skip
                self._answer(json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
            else:
                self._answer(f'<a href="../../files/{FILENAME}">{FILENAME}</a>'.encode(), "text/html")
        elif self.path == "/tiny":
            dist = {"tarball": f"{self.server.address}/files/tiny-1.0.tgz"}
            versions = {"1.0.0": {"name": "tiny", "version": "1.0.0", "dist": dist}}
            self._answer(json.dumps({"name": "tiny", "versions": versions}).encode(), "application/json")
        elif self.path.startswith("/files/") and name in self.server.files and self.server.file_status == 200:
            self._file(self.server.files[name])
        else:
            self.send_error(404 if self.server.file_status == 200 else self.server.file_status)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, content: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "") if self.server.ranges else None
        start = int(wanted[1]) if wanted else 0
        if wanted and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.cut_after])

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    server = Index()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in [name for name in os.environ if name.upper().startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {
        "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{server.address}/simple", "PIP_RETRIES": "0",
        "npm_config_registry": server.address, "npm_config_cache": str(tmp_path / "npm"),
        "npm_config_fetch_retries": "0", "npm_config_userconfig": str(tmp_path / "npmrc"), "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Sample:
    digest = hashlib.sha256(CONTENT).hexdigest()
    for name, client, filename in (("tiny", "pip", FILENAME), ("tiny-npm", "npm", "tiny-1.0.tgz")):
        version = "1.0" if client == "pip" else "1.0.0"
        archive = Archive(client, "tiny", version, filename, digest, "MIT", "tiny-1.0/", ("data.txt", "*.bin"))
        monkeypatch.setitem(SAMPLES, name, Sample(name, "made here", (archive,)))
    return SAMPLES["tiny"]


def file_requests(index: Index) -> list[tuple[str, str | None]]:
    return [asked for asked in index.asked if asked[0].startswith("/files/")]


@pytest.mark.parametrize("as_json", [False, True])
def test_pip_brings_a_source_distribution_and_runs_nothing_of_it(index: Index, tmp_path: Path, as_json: bool) -> None:
    index.as_json = as_json
    told: list[tuple[str, int, int]] = []
    folder = fetch("sample:tiny", tmp_path / "cache", progress=lambda *step: told.append(step))
    assert folder == sample_folder("tiny", tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["data.txt", "fetched.json", "noise.bin"]
    assert told[-1] == (FILENAME, len(CONTENT), len(CONTENT))
    assert not list(tmp_path.rglob("ran"))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".tiny.lock", "tiny"]


def test_a_fetched_sample_needs_no_connection_until_it_is_damaged(index: Index, tmp_path: Path) -> None:
    folder = fetch("tiny", tmp_path)
    index.asked.clear()
    assert fetch("tiny", tmp_path) == folder
    assert index.asked == []
    (folder / "data.txt").write_text("changed")
    with pytest.raises(DataError, match="damaged"):
        sample_folder("tiny", tmp_path)
    assert (fetch("tiny", tmp_path) / "data.txt").read_text(encoding="utf-8") == "好\n"
    assert len(file_requests(index)) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_fetch_goes_on(index: Index, tmp_path: Path, ranges: bool) -> None:
    index.cut_after, index.ranges = 1_500_000, ranges
    with pytest.raises(DataError, match="could not bring") as caught:
        fetch("tiny", tmp_path)
    assert "closed after 1,500,000 of" in str(caught.value)
    assert not (tmp_path / "tiny").exists()
    part = tmp_path / ".tiny.downloads" / f"{FILENAME}.part"
    assert part.read_bytes() == CONTENT[:1_500_000]
    index.cut_after = None
    fetch("tiny", tmp_path)
    assert file_requests(index)[1] == (f"/files/{FILENAME}", "bytes=1500000-")


def test_a_whole_part_is_only_checked(index: Index, tmp_path: Path) -> None:
    part = tmp_path / ".tiny.downloads" / f"{FILENAME}.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    fetch("tiny", tmp_path)
    assert file_requests(index) == [(f"/files/{FILENAME}", f"bytes={len(CONTENT)}-")]


def test_a_wrong_digest_is_said_and_not_used(index: Index, tmp_path: Path) -> None:
    index.files[FILENAME] = CONTENT + b"x"
    with pytest.raises(CorruptError, match="not the file that danlu knows"):
        fetch("tiny", tmp_path)
    assert not (tmp_path / "tiny").exists()
    assert not list((tmp_path / ".tiny.downloads").iterdir())
    index.files[FILENAME] = CONTENT
    fetch("tiny", tmp_path)


def test_what_cannot_be_brought_says_what_to_do(index: Index, tmp_path: Path, tiny: Sample) -> None:
    index.file_status = 404
    with pytest.raises(DataError, match="404") as caught:
        fetch("tiny", tmp_path)
    assert caught.value.advice is not None
    assert tiny.archives[0].sha256 in caught.value.advice
    assert FILENAME in caught.value.advice
    assert "--mirror" in caught.value.advice


def test_an_index_without_the_file_and_an_index_out_of_reach(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.address}/other")
    with pytest.raises(DataError, match="none of the 0 files"):
        fetch("tiny", tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    with pytest.raises(DataError, match="could not bring"):
        fetch("tiny", tmp_path)


def test_an_index_in_a_folder_and_a_folder_of_files(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "simple/tiny/index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{FILENAME}">{FILENAME}</a>')
    (page.parent / FILENAME).write_bytes(CONTENT)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    fetch("tiny", tmp_path / "one")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(page.parent))
    fetch("tiny", tmp_path / "two")
    assert index.asked == []


def test_a_mirror_folder_asks_nobody(index: Index, tmp_path: Path, tiny: Sample) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with pytest.raises(DataError, match=r"has no tiny-1\.0\.tar\.gz") as caught:
        fetch("tiny", tmp_path / "cache", mirror=mirror)
    assert tiny.archives[0].sha256 in str(caught.value.advice)
    (mirror / FILENAME).write_bytes(CONTENT[:-1])
    with pytest.raises(CorruptError, match="not the file"):
        fetch("tiny", tmp_path / "cache", mirror=mirror)
    (mirror / FILENAME).write_bytes(CONTENT)
    assert (fetch("tiny", tmp_path / "cache", mirror=mirror) / "data.txt").exists()
    assert index.asked == []


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_brings_a_package(index: Index, tmp_path: Path) -> None:
    assert (fetch("tiny-npm", tmp_path / "cache") / "data.txt").exists()
    index.files.clear()
    with pytest.raises(DataError, match="npm could not bring"):
        fetch("tiny-npm", tmp_path / "other")


def test_without_npm_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm is not installed") as caught:
        fetch("tiny-npm", tmp_path)
    assert "install npm, or put tiny-1.0.tgz" in str(caught.value.advice)


def test_without_pip_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("raise ModuleNotFoundError(\"No module named 'pip'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DataError, match="has no pip") as caught:
        fetch("tiny", tmp_path)
    assert "ensurepip" in str(caught.value.advice)


def test_two_fetches_of_one_sample_wait_for_each_other(index: Index, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=("tiny", tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file_requests(index)) == 1
    sample_folder("tiny", tmp_path)


def test_a_full_disk_says_so_and_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILENAME).write_bytes(CONTENT)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch_module, "unpack", full)
    with pytest.raises(DataError, match="the disk is full"):
        fetch("tiny", tmp_path / "cache", mirror=tmp_path)
    assert not (tmp_path / "cache/tiny").exists()
    monkeypatch.undo()


def test_an_unknown_sample_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        find_sample("sample:zh-poerty")
    assert caught.value.advice == "did you mean 'zh-poetry'?"
