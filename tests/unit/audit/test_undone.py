from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audit_models import D, H, L, derive, drawn, folder_of, trained
from danlu.audit.aligned import Alignment, Pair, pairs_of
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.undone import undone
from danlu.model.base import Model

Tensors = dict[str, torch.Tensor]
AS_IT_STANDS = Alignment(layer_map=tuple(range(L)), basis="same", rotation=None)
WIDTH = D // H


def turns(block: int, amount: float | None = None) -> torch.Tensor:
    """Rotations of heads, any or by angles of about so much."""
    drawn_by = torch.randn(H, WIDTH, WIDTH, generator=torch.Generator().manual_seed(block))
    if amount is None:
        return torch.linalg.qr(drawn_by)[0]
    return torch.linalg.matrix_exp(amount * (drawn_by - drawn_by.mT) / (2 * WIDTH) ** 0.5)


def turn(tensors: Tensors, names: str, reads: bool = True, amount: float | None = None) -> None:
    """Turn the channels of every head."""
    for block in range(L):
        for name in names.split():
            key, by = f"blocks.{block}.attention.{name}.weight", turns(block, amount)
            rows = tensors[key] if reads else tensors[key].T
            rows = (by @ rows.reshape(H, WIDTH, -1)).flatten(0, 1)
            tensors[key] = rows if reads else rows.T


def heads_turned(tensors: Tensors) -> None:
    turn(tensors, "q k v")
    turn(tensors, "out", reads=False)


READS = {"attention_norm": ("attention.q", "attention.k", "attention.v")}
READS["feedforward_norm"] = ("feedforward.gate", "feedforward.up")


def gains_moved(tensors: Tensors) -> None:
    for block in range(L):
        for norm, names in READS.items():
            key = f"blocks.{block}.{norm}.weight"
            new = torch.rand(D, generator=torch.Generator().manual_seed(block)) + 0.5
            for name in names:
                tensors[f"blocks.{block}.{name}.weight"] *= tensors[key] / new
            tensors[key] = new


def after(tmp_path: Path, suspect: Model, reference: Model) -> tuple[dict[str, Pair], set[str]]:
    seen: set[str] = set()
    folders = folder_of(tmp_path / "suspect", suspect), folder_of(tmp_path / "reference", reference)
    with Checkpoint(folders[0]) as theirs, Checkpoint(folders[1]) as ours:
        pairs = undone(pairs_of(theirs, ours, AS_IT_STANDS), theirs, ours, AS_IT_STANDS, seen)
        return {pair.name: pair for pair in pairs}, seen


def far(pairs: dict[str, Pair]) -> float:
    """The largest distance of a pair as a share of its length."""
    return max(float((pair.theirs - pair.ours).norm() / pair.ours.norm()) for pair in pairs.values())


def test_heads_that_were_turned_are_turned_back(tmp_path: Path) -> None:
    reference = trained(drawn("a"), 0.5, 1)
    pairs, seen = after(tmp_path, derive(heads_turned, reference), reference)
    assert seen == {"heads turned"}
    assert len(pairs) == len({name for name, each in reference.state_dict().items() if each.ndim == 2})
    assert far(pairs) < 1e-5
    exact = {name for name, pair in pairs.items() if pair.is_exact}
    assert not any(".attention." in name for name in exact)
    assert any(".feedforward." in name for name in exact)


@pytest.mark.parametrize("amount", [0.01, 0.1, 0.3])
def test_a_small_turn_is_seen_where_nothing_else_was_done(tmp_path: Path, amount: float) -> None:
    reference = trained(drawn("a"), 0.5, 1)
    suspect = derive(lambda tensors: turn(tensors, "q k", amount=amount), reference)
    pairs, seen = after(tmp_path, suspect, reference)
    assert seen == {"heads turned"}
    assert far(pairs) < 1e-5


def test_a_turn_that_the_partner_did_not_take_is_none(tmp_path: Path) -> None:
    reference = trained(drawn("a"), 0.5, 1)
    pairs, seen = after(tmp_path, derive(lambda tensors: turn(tensors, "q v"), reference), reference)
    assert seen == set()
    assert far(pairs) > 1


def test_gains_that_were_moved_are_moved_back(tmp_path: Path) -> None:
    reference = trained(drawn("a"), 0.5, 1)
    pairs, seen = after(tmp_path, derive(gains_moved, reference), reference)
    assert seen == {"rescaled"}
    assert far(pairs) < 1e-5


@pytest.mark.parametrize("other", ["itself", "trained on", "unrelated"])
def test_where_nothing_was_done_nothing_is_undone(tmp_path: Path, other: str) -> None:
    reference = trained(drawn("a"), 0.5, 1)
    suspects = {
        "itself": reference,
        "trained on": trained(derive(lambda _: None, reference), 0.3, 2),
        "unrelated": trained(drawn("b"), 0.5, 3),
    }
    pairs, seen = after(tmp_path, suspects[other], reference)
    assert seen == set()
    stored = suspects[other].state_dict()
    assert all(torch.equal(pair.theirs, stored[name]) for name, pair in pairs.items())
    assert all(pair.is_exact for pair in pairs.values())
