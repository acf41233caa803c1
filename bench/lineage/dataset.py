"""The poems that the benchmark's models learn from: a few compact datasets, from which all of it can be built.

    python bench/lineage/dataset.py --into DIR [--samples danlu-workspace/samples]

The sample ``zh-poetry`` is read in its own order until there are enough poems of each dynasty: ``tang``, what most
models learn from, and three that have no poem in common: ``song``, ``song-2``, ``song-3``. The folder of some megabytes
that this makes suffices elsewhere; neither the sample nor a converter of scripts is needed there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from danlu.core.artifact import Artifact
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.sources import read_source
from danlu.data.stage import DataConfig, build_dataset

__all__ = ["DATASETS", "open_datasets", "prepare_datasets"]

DATASETS = {"tang": ("tang", 16_000), "song": ("song", 8_000), "song-2": ("song", 4_000), "song-3": ("song", 4_000)}
"""Dataset -> the dynasty of its poems, and how many are read for it."""


def prepare_datasets(samples: Path, folder: Path) -> dict[str, Artifact]:
    """Make the datasets, or find those made before."""
    workspace = Workspace(folder)
    workspace.samples = samples.absolute()
    if len(found := open_datasets(folder)) == len(DATASETS):
        return found
    waiting: dict[str, list[str]] = {name: [] for name in DATASETS}
    columns = {"text": "text", "dynasty": "dynasty"}
    for batch in read_source("sample:zh-poetry", columns, base=folder, samples=workspace.samples):
        for row in batch.to_pylist():
            for name, (dynasty, n) in DATASETS.items():
                if row["problem"] is None and row["dynasty"] == dynasty and len(waiting[name]) < n:
                    waiting[name].append(row["text"])
                    break
    with tempfile.TemporaryDirectory() as scratch:
        for name, texts in waiting.items():
            path = Path(scratch) / f"{name}.jsonl"
            path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
            clean = {"script": "simplified", "normalize": "nfc", "min_chars": 5}
            split = {"valid": 0.04, "test": 0.0}
            config = DataConfig(source=path.name, columns={"text": "text"}, clean=clean, split=split)
            build_dataset(workspace, name, config, Path(scratch), Silent())
    return open_datasets(folder)


def open_datasets(folder: Path) -> dict[str, Artifact]:
    """The datasets that a folder holds."""
    return {artifact.name: artifact for artifact in Workspace(folder).all("dataset") if artifact.name in DATASETS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--samples", type=Path, default=Workspace().samples)
    given = parser.parse_args()
    for artifact in prepare_datasets(given.samples, given.into).values():
        splits = artifact.json("summary.json")["splits"]
        print(artifact.path.name, *(f"{split} {facts['n']:,}" for split, facts in splits.items()))


if __name__ == "__main__":
    main()
