"""Which danlu this is: the digest of its files and, where it runs from a checkout, the commit."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from danlu._version import __version__
from danlu.core.files import digest_of, sha256_file

__all__ = ["code_revision"]

_SECONDS = 20


@cache
def code_revision() -> dict[str, Any]:
    """The version, the digest over all files of the package, and the commit that they come from.

    Returns:
        ``version``, ``sha256``, ``commit`` (None where danlu does not run from a checkout) and ``dirty``: whether the
        package's files differ from the commit; None where there is none.
    """
    package = Path(__file__).parents[2]
    paths = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*")) if path.is_file()}
    digests = {name: sha256_file(path) for name, path in paths.items() if "__pycache__" not in name}
    commit, dirty = _checkout(package)
    return {"version": __version__, "sha256": digest_of(digests), "commit": commit, "dirty": dirty}


def _checkout(package: Path) -> tuple[str | None, bool | None]:
    """The commit of a folder that git keeps, and whether it differs from that.

    A package that was installed into a folder of another project's checkout is not kept by that project.
    """
    git = shutil.which("git")
    if git is None or _told(git, package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _told(git, package, "rev-parse", "HEAD")
    changed = _told(git, package, "status", "--porcelain", "--untracked-files=all", "--", ".")
    return (None, None) if commit is None or changed is None else (commit, bool(changed))


def _told(git: str, folder: Path, *words: str) -> str | None:
    """What git answers; None where it fails. Nothing that the checkout configures is run."""
    command = [git, "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    try:
        # A list, no shell; git is the one on the path, the words are ours.
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
