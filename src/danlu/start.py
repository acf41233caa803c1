"""What a recipe's ``model.from`` stands for: a checkpoint's folder, a sample, or a model of the workspace."""

from __future__ import annotations

from pathlib import Path

from danlu.core.errors import UsageError
from danlu.core.files import digest_of, sha256_file
from danlu.core.workspace import Workspace
from danlu.data.samples import sample_folder
from danlu.train.prepare import Start

__all__ = ["SCRATCH", "find_start"]

SCRATCH = "scratch"
"""Drawn weights."""

_MATTER = ("*.safetensors", "*.json", "*.txt")
"""What of a folder decides what a model made from it becomes."""


def find_start(wanted: str, base: Path, workspace: Workspace) -> Start | None:
    """The checkpoint that a recipe's ``model.from`` names, or None for ``scratch``.

    Args:
        wanted: ``scratch``, a folder (from ``base`` on), ``sample:NAME`` or ``name@alias``.
        base: The recipe's folder.
        workspace: Where samples and models are.

    Raises:
        UsageError: There is none.
        DataError: The sample is not fetched yet.
        CorruptError: The model is damaged.
    """
    if wanted == SCRATCH:
        return None
    folder = base / Path(wanted).expanduser()
    if wanted.startswith("sample:"):
        folder = sample_folder(wanted, workspace.samples)
    elif not folder.is_dir() and "@" in wanted:
        found = workspace.target(wanted, "model")
        return Start(found.path, found.digest)
    files = sorted({path for pattern in _MATTER for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise UsageError(
            f"there is no checkpoint {wanted!r}",
            where=str(folder),
            advice="give scratch, a folder with config.json and *.safetensors, sample:NAME, or name@alias",
        )
    return Start(folder, digest_of({path.name: sha256_file(path) for path in files}))
