"""How alike two models are, by every published measure that the benchmark compares the audit with.

    PYTHONPATH=src python bench/lineage/baselines.py SUSPECT REFERENCE [--tools]

Each takes two folders, of danlu or in Hugging Face layout. A measure that says nothing about a pair gives NaN and why.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from baselines_activations import agreement, phi_match, reef
from baselines_weights import awm, ghostspec_mse, ics, norm_cosine, pcs, phi_u, sigma_curves
from published_tools import TOOLS
from scores import Scorer, of_folders

__all__ = ["BASELINES", "THRESHOLDS", "TOOLS", "baselines"]

THRESHOLDS = {
    "reef": 0.8,
    "phi-u": -math.log10(0.05),
    "phi-match": -math.log10(0.05),
    "modeldna": 0.9,
    "provenance-kit": 0.75,
    "provenance-kit-weights": 0.75,
}
"""From where on the publishers speak of descent, where they say so. The others give no number, or need controls."""

_WEIGHTS = {
    "norm-cosine": norm_cosine,
    "sigma-curves": sigma_curves,
    "pcs": pcs,
    "ics": ics,
    "ghostspec-mse": ghostspec_mse,
    "awm": awm,
    "phi-u": phi_u,
}
_ACTIVATIONS = {"phi-match": phi_match, "reef": reef, "agreement": agreement}


def baselines(prompts: Sequence[str] | None = None) -> dict[str, Scorer]:
    """Every measure by its name.

    Args:
        prompts: Texts to run the models on; None: tokens drawn at random.
    """
    running = {name: partial(measure, prompts=prompts) for name, measure in _ACTIVATIONS.items()}
    return {name: of_folders(measure) for name, measure in {**_WEIGHTS, **running}.items()}


BASELINES = baselines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suspect", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--tools", action="store_true", help="also the tools that others publish, where installed")
    asked = parser.parse_args()
    for name, score in {**BASELINES, **(TOOLS if asked.tools else {})}.items():
        start = time.perf_counter()
        found = score(asked.suspect, asked.reference)
        seconds = time.perf_counter() - start
        threshold = f"(threshold {THRESHOLDS[name]:.3g})" if name in THRESHOLDS else ""
        print(f"{name:24} {found:9.4f}  {seconds:6.2f} s  {threshold} {found.reason}".rstrip())


if __name__ == "__main__":
    main()
