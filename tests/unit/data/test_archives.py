"""Unpacking what comes from outside: the wanted members only, and nothing unsafe."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from danlu.core.errors import CorruptError
from danlu.data.archives import unpack

BIG = 1 << 20


def tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("make", [tar, zipped])
def test_only_the_wanted_members_come_out_and_lose_their_root(tmp_path: Path, make) -> None:
    contents = {"p/a.txt": b"1", "p/sub/b.txt": b"2", "p/setup.py": b"3", "q/a.txt": b"4"}
    archive = make(tmp_path / "archive", contents)
    out = tmp_path / "out"
    assert unpack(archive, out, root="p/", members=["*.txt"], max_bytes=BIG) == [Path("a.txt"), Path("sub/b.txt")]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == ["a.txt", "sub/b.txt"]
    assert (out / "sub/b.txt").read_bytes() == b"2"


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "C:/evil.txt", "a\\..\\evil.txt"])
def test_no_member_leaves_the_folder(tmp_path: Path, make, name: str) -> None:
    archive = make(tmp_path / "archive", {"a.txt": b"fine", name: b"evil"})
    with pytest.raises(CorruptError, match="unsafe member"):
        unpack(archive, tmp_path / "deep/er/out", root="", members=["*.txt"], max_bytes=BIG)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_no_links_or_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    archive = tar(tmp_path / "archive", {"a.txt": special("a.txt", kind, "/etc/hostname")})
    with pytest.raises(CorruptError, match="unsafe member"):
        unpack(archive, tmp_path / "out", root="", members=["*.txt"], max_bytes=BIG)


def test_no_links_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        info = zipfile.ZipInfo("a.txt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(CorruptError, match="unsafe member"):
        unpack(tmp_path / "archive", tmp_path / "out", root="", members=["*.txt"], max_bytes=BIG)


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_bomb_stops_at_the_limit(tmp_path: Path, make) -> None:
    archive = make(tmp_path / "archive", {"a.txt": b"x" * 600, "b.txt": b"x" * 600})
    with pytest.raises(CorruptError, match="more than 1,000 bytes"):
        unpack(archive, tmp_path / "out", root="", members=["*.txt"], max_bytes=1000)
    unpack(archive, tmp_path / "whole", root="", members=["*.txt"], max_bytes=1200)


def test_a_missing_or_doubled_member_is_an_error(tmp_path: Path) -> None:
    archive = tar(tmp_path / "archive", {"a.txt": b"x"})
    with pytest.raises(CorruptError, match=r"holds no \*\.json"):
        unpack(archive, tmp_path / "out", root="", members=["*.txt", "*.json"], max_bytes=BIG)
    doubled = tar(tmp_path / "doubled", {"a.txt": b"x", "./a.txt": b"y"})
    with pytest.raises(CorruptError, match="one member twice"):
        unpack(doubled, tmp_path / "two", root="", members=["*.txt"], max_bytes=BIG)


def test_a_cut_or_foreign_file_is_an_error(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole", {f"{i}.txt": bytes(range(256)) * 50 for i in range(50)}).read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive at all"):
        (tmp_path / "archive").write_bytes(content)
        with pytest.raises(CorruptError, match="cannot be read"):
            unpack(tmp_path / "archive", tmp_path / str(len(content)), root="", members=["*.txt"], max_bytes=BIG)
