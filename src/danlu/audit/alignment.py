"""Bringing a model into another one's basis: what turns the sequence of one into that of the other.

A model computes the same when its sequence is turned by any rotation, if everything that reads or writes it is turned
too. Vectors of two models can be compared only after that is undone.
"""

from __future__ import annotations

import functools

import torch

from danlu.audit.units import Parameters

__all__ = ["TOKENS", "from_tokens", "procrustes", "shared_rows"]

TOKENS = "embedding.tokens.weight"
"""The parameter that holds the token vectors."""
_PER_CHANNEL = 4
"""Shared tokens a channel that a rotation must rest on,"""
_MOST_PER_CHANNEL = 16
"""and the most that it does."""
_AT_ONCE = 4096
"""Tokens that are read together."""


def procrustes(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """The rotation ``[D, other D]`` that brings rows nearest to other rows (Schönemann, 1966).

    Args:
        theirs: ``[n, D]``.
        ours: ``[n, other D]``.
    """
    return _nearest(theirs.T @ ours)


@functools.lru_cache(maxsize=2)  # several tests of one pair need it
def from_tokens(suspect: Parameters, reference: Parameters) -> torch.Tensor | None:
    """The rotation by which the vectors of shared tokens agree best; None: too few tokens are shared to say."""
    rows = shared_rows(suspect, reference)
    if rows is None:
        return None
    sizes = (suspect.shape(TOKENS)[1], reference.shape(TOKENS)[1])
    step = max(1, len(rows[0]) // (_MOST_PER_CHANNEL * max(sizes)))
    product = torch.zeros(sizes)
    for theirs, ours in zip(*(torch.split(side[::step], _AT_ONCE) for side in rows), strict=True):
        product += suspect.read(TOKENS, rows=theirs).T @ reference.read(TOKENS, rows=ours)
    return _nearest(product)


def shared_rows(suspect: Parameters, reference: Parameters) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The ids of shared tokens in both; None: too few are shared for a rotation to rest on.

    The same token is one of the same string, or of the same number where a model comes without its tokenizer.
    """
    if TOKENS not in suspect or TOKENS not in reference:
        return None
    (n_theirs, their_width), (n_ours, our_width) = suspect.shape(TOKENS), reference.shape(TOKENS)
    their_ids, our_ids = suspect.tokens(), reference.tokens()
    if their_ids is not None and our_ids is not None:
        shared = sorted(their_ids.keys() & our_ids.keys())
        pairs = [(their_ids[token], our_ids[token]) for token in shared]
        pairs = [(theirs, ours) for theirs, ours in pairs if theirs < n_theirs and ours < n_ours]
    else:
        pairs = [(number, number) for number in range(n_ours)] if n_theirs == n_ours else []
    if len(pairs) < _PER_CHANNEL * max(their_width, our_width):
        return None
    their_rows, our_rows = torch.tensor(pairs).T
    return their_rows, our_rows


def _nearest(product: torch.Tensor) -> torch.Tensor:
    """The rotation nearest to a product of rows with rows."""
    u, _, v = torch.linalg.svd(product, full_matrices=False)
    rotation: torch.Tensor = u @ v
    return rotation
