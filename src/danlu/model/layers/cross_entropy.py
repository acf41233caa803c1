"""Cross-entropy of a linear layer's scores without all scores at once: for large vocabularies and many tokens.

The scores of M tokens over a vocabulary of V, their softmax and their gradient are each M x V numbers. Here they exist
for some tokens at a time; the gradient of a piece is taken while its scores are there, so that nothing is computed
twice (as Wijmans et al., 2024, do within one GPU kernel).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

__all__ = ["LARGE", "linear_cross_entropy"]

LARGE = 2**26
"""Scores, M x V, from which on they are taken piece by piece: a quarter of a GiB each time that they are kept. Below
this, pieces save little and are no faster."""
_PIECE = {"cpu": 2**23, "cuda": 2**27}
"""Scores of a piece: as many as a processor's cache likes, and enough for a GPU to be at work with."""


def linear_cross_entropy(
    x_MD: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_M: torch.Tensor,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """The cross-entropy, summed over tokens, of ``x_MD @ weight_VD.T + bias_V``, in nats.

    Args:
        x_MD: What is scored.
        weight_VD: A vector a token of the vocabulary.
        bias_V: Added to the scores; None: nothing.
        targets_M: int64; the right token of each.
        smoothing: Share of the target that is spread over all tokens (Szegedy et al., 2016).

    Returns:
        A scalar; its gradients are those of ``F.cross_entropy(..., reduction="sum", label_smoothing=smoothing)``.
    """
    given = (x_MD, weight_VD, bias_V, targets_M, smoothing)
    total: torch.Tensor = _LinearCrossEntropy.apply(*given)  # type: ignore[no-untyped-call]  # torch types it so
    return total


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_MD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_M: torch.Tensor,
        smoothing: float,
    ) -> torch.Tensor:
        n_tokens, kind = len(weight_VD), x_MD.device.type
        total = torch.zeros((), device=x_MD.device)
        gradient_MD, gradient_VD = torch.empty_like(x_MD), torch.zeros_like(weight_VD)
        gradient_V = None if bias_V is None else torch.zeros_like(bias_V)
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_MD.dtype
        x_all_MD, weight = x_MD.to(precision), weight_VD.to(precision)
        bias = None if bias_V is None else bias_V.to(precision)
        step = max(1, _PIECE[kind] // n_tokens)
        with torch.autocast(kind, enabled=False):  # all is in its precision by now, and nothing is to be copied
            for start in range(0, len(x_MD), step):
                x, targets = x_all_MD[start : start + step], targets_M[start : start + step, None]
                scores = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
                logprobs = torch.log_softmax(scores, -1, dtype=torch.float32)
                total -= (1 - smoothing) * logprobs.gather(1, targets).sum()
                if smoothing:
                    total -= smoothing / n_tokens * logprobs.sum()
                error = logprobs.exp_()  # the softmax; less the target it is the gradient
                if smoothing:
                    error -= smoothing / n_tokens
                error.scatter_add_(1, targets, error.new_full(targets.shape, smoothing - 1))
                if gradient_V is not None:
                    gradient_V += error.sum(0)
                error = error.to(precision)
                gradient_MD[start : start + step] = error @ weight
                gradient_VD += error.T @ x
        ctx.save_for_backward(gradient_MD, gradient_VD, gradient_V)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        gradients = [None if each is None else each * upstream for each in ctx.saved_tensors]
        return (*gradients, None, None)
