"""Opens a fetched archive: only the wanted members, never outside the folder, never more than a stated size.

An archive comes from outside, so nothing that it says about itself is trusted: a wanted member with an absolute path,
a `..`, a backslash, a link or a device inside, or more bytes than the limit refuses the whole archive.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from danlu.core.errors import CorruptError

__all__ = ["unpack"]

CHUNK = 1 << 20


def unpack(archive: Path, folder: Path, *, root: str, members: Sequence[str], max_bytes: int) -> list[Path]:
    """Unpacks the wanted members of one archive.

    Args:
        archive: A `.tar.gz`, `.tgz`, `.whl` or `.zip` file.
        folder: Where the files go, under their path in the archive less `root`.
        root: The prefix, in the archive, of everything wanted; `""` for none.
        members: Patterns (`fnmatch`) on the path under `root`. Each must match something.
        max_bytes: The most that all the files may hold together.

    Returns:
        The files written, relative to `folder`, in the archive's order.

    Raises:
        CorruptError: It is no archive, is cut short, lacks a member, or holds something unsafe.
    """
    written: list[Path] = []
    unmatched = set(members)
    left = max_bytes
    try:
        for name, content in _members(archive, root, members):
            inner = name.removeprefix(root)
            unmatched -= {pattern for pattern in unmatched if fnmatchcase(inner, pattern)}
            if content is None or not _is_safe(inner):
                raise CorruptError("the archive holds an unsafe member", where=f"{archive}: {name}")
            path = folder / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("xb") as file:
                while chunk := content.read(min(CHUNK, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise CorruptError(f"the archive unpacks to more than {max_bytes:,} bytes", where=str(archive))
                    file.write(chunk)
            written.append(Path(inner))
    except FileExistsError as error:
        raise CorruptError("the archive holds one member twice", where=f"{archive}: {error.filename}") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptError(f"the archive cannot be read: {error}", where=str(archive)) from error
    if unmatched:
        raise CorruptError(f"the archive holds no {', '.join(sorted(unmatched))}", where=f"{archive}: {root}")
    return written


def _members(archive: Path, root: str, members: Sequence[str]) -> Iterator[tuple[str, IO[bytes] | None]]:
    """The wanted members of an archive; content None where one is no plain file. Folders are left out."""

    def wanted(name: str) -> bool:
        return name.startswith(root) and any(fnmatchcase(name.removeprefix(root), pattern) for pattern in members)

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if wanted(info.filename) and not info.is_dir():
                    # The upper half of external_attr is the Unix mode; its file type is 0 where none was recorded.
                    is_plain = (info.external_attr >> 16) & 0o170000 in (0, 0o100000) and not info.flag_bits & 1
                    yield info.filename, opened.open(info) if is_plain else None
        return
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if wanted(member.name) and not member.isdir():
                yield member.name, tar.extractfile(member) if member.isreg() else None


def _is_safe(inner: str) -> bool:
    """Whether a path stays in the folder that it is put in, on every system."""
    path = PurePosixPath(inner)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(inner) & set("\\:\0")
