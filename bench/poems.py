"""The poems of the sample ``zh-poetry``, as the benches read them."""

from __future__ import annotations

from danlu.core.workspace import Workspace
from danlu.data.samples import find_sample, sample_folder

__all__ = ["read_poems"]


def read_poems() -> list[tuple[str, str]]:
    """The text and the dynasty of every poem of ``zh-poetry``."""
    read = find_sample("zh-poetry").read
    assert read is not None
    folder = sample_folder("zh-poetry", Workspace(None).samples)
    return [(values[2], values[3]) for _, values in read(folder) if values[2]]
