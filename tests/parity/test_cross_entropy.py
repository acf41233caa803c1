from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.model.base import Signature
from danlu.model.layers import cross_entropy, heads
from danlu.model.layers.cross_entropy import linear_cross_entropy
from small import make_module


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("piece", [1, 7 * 11, 1000, 10**9])
def test_piece_by_piece_is_what_torch_computes_at_once(
    monkeypatch: pytest.MonkeyPatch, bias: bool, smoothing: float, piece: int
) -> None:
    monkeypatch.setattr(cross_entropy, "_PIECE", {"cpu": piece})
    torch.manual_seed(0)
    x, weight, b = torch.randn(23, 5), torch.randn(11, 5), torch.randn(11)
    targets = torch.randint(11, (23,))
    found = []
    for way in ("ours", "torch"):
        given = [each.clone().requires_grad_() for each in (x, weight, b)]
        used = given[2] if bias else None
        if way == "ours":
            loss = linear_cross_entropy(given[0], given[1], used, targets, smoothing)
        else:
            scores = F.linear(given[0], given[1], used)
            loss = F.cross_entropy(scores, targets, reduction="sum", label_smoothing=smoothing)
        torch.autograd.backward(loss * 0.3)
        found.append((loss, *(each.grad for each in given[: 3 if bias else 2])))
    for ours, theirs in zip(*found, strict=True):
        # Sums of 23 in another order: 1e-6 of their size.
        assert torch.allclose(ours, theirs, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("family", ["gpt", "bert"])
def test_a_model_with_a_large_vocabulary_learns_the_same(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    task = "language-modelling" if family == "gpt" else "masked-language-modelling"
    signature = Signature(task=task, vocab_size=50, mask_token=4, begin_token=2, end_token=3)
    torch.manual_seed(0)
    tokens = torch.randint(5, 50, (3, 9))
    batch = Batch(
        rows_B=torch.arange(3),
        tokens_BT=tokens,
        mask_BT=torch.ones_like(tokens, dtype=torch.bool),
        positions_BT=torch.arange(9).expand(3, 9),
        targets_BT=tokens.roll(-1, 1),
    )
    found = []
    for large in (10**9, 1):
        monkeypatch.setattr(heads, "LARGE", large)
        module = make_module(family, signature)
        answer = module(batch)
        assert (answer.scored is None) == (large == 1)
        assert answer.logits.shape == (27, 50)
        loss = module.loss(answer, batch)
        torch.autograd.backward(loss)
        found.append((loss, {name: weight.grad for name, weight in module.named_parameters()}))
    (whole, gradients), (pieces, others) = found
    assert pieces.item() == pytest.approx(whole.item(), abs=1e-6)
    for name, gradient in gradients.items():
        if gradient is not None:
            assert torch.allclose(others[name], gradient, atol=1e-6), name


def test_the_scores_of_all_tokens_never_exist_at_once() -> None:
    x, weight = torch.randn(2000, 8, requires_grad=True), torch.randn(50_000, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.numel()) or each, lambda each: each):
        linear_cross_entropy(x, weight, None, torch.zeros(2000, dtype=torch.long))
    assert sum(kept) == x.numel() + weight.numel()
