"""Likeness that proves nothing: unrelated models show it too, so it is shown beside them and never decides.

Norm gains stay near 1 in every model, so that the cosine of two models' gains is near 1 whoever made them; how the
spread of weights changes from layer to layer follows from the architecture; a tokenizer may be anybody's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from danlu.audit.checkpoint import Checkpoint

__all__ = ["Likeness", "compare_context"]

_ATTENTION = ("q", "k", "v", "out")


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike two models look; None: there is nothing to compare.

    Attributes:
        gain_cosine: Cosine of all norm gains, as a known accusation had it,
        gain_correlation: and their correlation, which takes away that all are near 1.
        spread_curves: Mean correlation over layers of the standard deviations of attention matrices.
        same_config: Share of the sizes and the kinds of parts that are the same.
        tokens: Shared tokens as a share of all of both.
    """

    gain_cosine: float | None
    gain_correlation: float | None
    spread_curves: float | None
    same_config: float
    tokens: float | None


def compare_context(suspect: Checkpoint, reference: Checkpoint) -> Likeness:
    """Compare what says little."""
    gains = [_gains(each) for each in (suspect, reference)]
    comparable = gains[0].shape == gains[1].shape and len(gains[0]) > 1
    curves = [_spreads(each) for each in (suspect, reference)]
    ours, theirs = (_facts(each) for each in (reference, suspect))
    their_tokens, our_tokens = suspect.tokens(), reference.tokens()
    return Likeness(
        gain_cosine=_cosine(*gains) if comparable else None,
        gain_correlation=_correlation(*gains) if comparable else None,
        spread_curves=_mean(_correlation(a, b) for a, b in zip(*curves, strict=True))
        if curves[0].shape == curves[1].shape and curves[0].shape[1] > 2
        else None,
        same_config=float(np.mean([ours[key] == theirs.get(key) for key in ours])),
        tokens=None if their_tokens is None or our_tokens is None else _jaccard(their_tokens, our_tokens),
    )


def _facts(model: Checkpoint) -> dict[str, object]:
    """The architecture, as far as it shows: the kinds of norms, and the sizes of the parts of the first block."""
    first = {name: model.shape(name) for name in model.names if name.startswith(("blocks.0.", "embedding."))}
    return {**asdict(model.traits), "n_blocks": model.n_blocks, **first}


def _gains(model: Checkpoint) -> np.ndarray:
    names = [name for name in model.names if name.endswith("norm.weight")]
    return np.concatenate([model.read(name).numpy() for name in sorted(names)]) if names else np.zeros(0)


def _spreads(model: Checkpoint) -> np.ndarray:
    """Standard deviations, ``[4, n_blocks]``."""
    names = [[f"blocks.{block}.attention.{name}.weight" for block in range(model.n_blocks)] for name in _ATTENTION]
    return np.array([[float(model.read(name).std()) if name in model else 0.0 for name in row] for row in names])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(1e-30, np.linalg.norm(a) * np.linalg.norm(b)))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return _cosine(a - a.mean(), b - b.mean())


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _jaccard(a: dict[str, int], b: dict[str, int]) -> float:
    return len(a.keys() & b.keys()) / max(1, len(a.keys() | b.keys()))
