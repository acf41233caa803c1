"""From logits to the next token: penalties, filters, and a draw that can be repeated.

The same arithmetic in the same order as the logits processors of Hugging Face transformers: repetition penalty,
temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["draw", "filtered", "most_likely", "penalised", "uniforms"]


def most_likely(logits_BV: torch.Tensor) -> torch.Tensor:
    """The most likely token of every row, the first where several are: int64 ``[B]``."""
    if logits_BV.device.type != "cpu":
        return logits_BV.argmax(1)
    return torch.from_numpy(logits_BV.numpy().argmax(1))  # an eighth of the time that torch takes


def penalised(logits_BV: torch.Tensor, seen_BV: torch.Tensor, penalty: float) -> torch.Tensor:
    """Make tokens that a text holds already less likely (Keskar et al., 2019).

    Args:
        logits_BV: Logits, or log-probabilities.
        seen_BV: True for the tokens that are in the text.
        penalty: What positive logits are divided by and negative ones multiplied by.
    """
    less_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, less_BV, logits_BV)


def filtered(
    logits_BV: torch.Tensor, temperature: float, top_k: int | None, top_p: float, min_p: float
) -> torch.Tensor:
    """The logits to draw from, -inf where a token may not be drawn. The most likely token always may.

    Args:
        logits_BV: Logits.
        temperature: What they are divided by.
        top_k: Keep the k most likely tokens (Fan et al., 2018); None: all.
        top_p: Keep the most likely tokens that have this probability together (nucleus: Holtzman et al., 2020).
        min_p: Keep tokens at least this share as likely as the most likely one (Nguyen et al., 2024).
    """
    logits_BV = logits_BV / temperature
    if top_k is not None and top_k < logits_BV.shape[1]:
        least_B1 = logits_BV.topk(top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if top_p < 1:
        ascending_BV, order_BV = logits_BV.sort()
        out_BV = ascending_BV.softmax(1).cumsum(1) <= 1 - top_p
        out_BV[:, -1] = False
        logits_BV = logits_BV.masked_fill(torch.empty_like(out_BV).scatter_(1, order_BV, out_BV), -torch.inf)
    if min_p > 0:
        probabilities_BV = logits_BV.softmax(1)
        out_BV = probabilities_BV < min_p * probabilities_BV.amax(1, keepdim=True)
        logits_BV = logits_BV.masked_fill(out_BV, -torch.inf)
    return logits_BV


def draw(logits_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Draw a token of every row by the inverse of its distribution function.

    Args:
        logits_BV: Logits; a token with -inf is never drawn.
        uniform_B: float32 from 0 to below 1, one a row.

    Returns:
        int64 ``[B]``.
    """
    cumulative_BV = logits_BV.double().softmax(1).cumsum(1)
    # A float32 below 1 times the last sum stays below it in float64, so that some token always lies above.
    height_B1 = uniform_B.double()[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, height_B1, right=True)[:, 0]


def uniforms(seed: int, prompts: Sequence[Sequence[int]], n: int) -> torch.Tensor:
    """The numbers by which each text is drawn: they depend on the seed and its own prompt, not on the batch around it.

    The second copy of a prompt in a batch gets other numbers than the first, the third others again.

    Args:
        seed: The seed.
        prompts: Token ids of each prompt.
        n: How many numbers a text needs.

    Returns:
        float32 ``[B, n]`` from 0 to below 1; the first ones do not depend on n.
    """
    copies: Counter[tuple[int, ...]] = Counter()
    rows = []
    for prompt in map(tuple, prompts):
        rows.append(np.random.default_rng([seed, copies[prompt], *prompt]).random(n, dtype=np.float32))
        copies[prompt] += 1
    return torch.from_numpy(np.stack(rows))
