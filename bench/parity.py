"""The parity table: every architecture beside transformers, forward and backward, exported and continued.

    PYTHONPATH=src:tests python bench/parity.py [--seeds 5] [--minilm FOLDER]

Random small models of transformers, several configs of each architecture, in float32: their folder is read by danlu,
the same padded texts are answered by both, and the gradients of a random function of the answers are compared in every
parameter. Then danlu writes the model, transformers reads it back, and both continue the same prompts greedily.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers

import counterparts
from danlu.model.pretrained.save import save_pretrained

N_NEW = 24
TEXTS = [
    *("A plain sentence.", "Two clauses, joined; then a third: done!", "unaffable antidisestablishmentarianism"),
    *("中文和 English 混排。", "Zürich, café, naïve", "x" * 200, "?", "the the the the"),
]


@dataclass
class Row:
    """What was measured of an architecture."""

    n_models: int = 0
    forward: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    n_loaded: int = 0
    n_continued: int = 0
    n_same: int = 0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--minilm", type=Path)
    given = arguments.parse_args()
    transformers.utils.logging.disable_progress_bar()
    rows: dict[str, Row] = defaultdict(Row)
    for case in counterparts.CASES:
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as folder:
                measure(rows[case.family], case, seed, Path(folder))
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, float32, {given.seeds} seeds a config")
    print(f"{'':8s} models   forward of answers to   backward of gradients to   exported, read   same tokens")
    for family, row in rows.items():
        print(
            f"{family:8s} {row.n_models:6d}   {max(row.forward):7.1e} {max(row.answers):13.1f}   "
            f"{max(row.backward):8.1e} {max(row.gradients):15.1f}   {row.n_loaded:7d} of {row.n_models:3d}   "
            f"{row.n_same:4d} of {row.n_continued:4d}"
        )
    if given.minilm:
        module = transformers.BertModel.from_pretrained(given.minilm, dtype=torch.float32).eval()
        found, _ = counterparts.backbone_difference(module, given.minilm, TEXTS)
        print(
            f"MiniLM        1   {found.forward:7.1e} {found.largest_answer:13.1f}   "
            f"{found.backward:8.1e} {found.largest_gradient:15.1f}   ({found.n_parameters:,} parameters, real weights)"
        )


def measure(row: Row, case: counterparts.Case, seed: int, folder: Path) -> None:
    module = counterparts.theirs(case, seed)
    found = counterparts.difference(module, counterparts.save(module, folder / "theirs"), case, seed)
    row.n_models += 1
    row.forward.append(found.forward)
    row.answers.append(found.largest_answer)
    row.backward.append(found.backward)
    row.gradients.append(found.largest_gradient)
    ours = counterparts.ours(folder / "theirs", case.task)
    save_pretrained(ours, counterparts.tokenizer(61), folder / "ours")
    (kind,) = json.loads((folder / "ours" / "config.json").read_text())["architectures"]
    again, told = getattr(transformers, kind).from_pretrained(folder / "ours", output_loading_info=True)
    tensors = dict(again.named_parameters())
    row.n_loaded += not any(told.values()) and all(
        torch.equal(parameter, tensors[name]) for name, parameter in module.named_parameters()
    )
    if case.task == counterparts.LANGUAGE:
        prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [3, 60]]
        row.n_continued += 1
        row.n_same += counterparts.greedy(ours, prompts, N_NEW) == counterparts.their_greedy(again, prompts, N_NEW)


if __name__ == "__main__":
    main()
