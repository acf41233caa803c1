"""Token vectors before the first step: which tokens stand near which in the training texts.

The positive pointwise mutual information of tokens within a window, factorised by a truncated SVD (Levy & Goldberg,
2014; Levy, Goldberg & Dagan, 2015): seconds of work that give a small model from scratch what word2vec would.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from danlu.data.batches import Tokens

__all__ = ["cooccurrence_vectors"]

_WINDOW = 5
_SMOOTHING = 0.75
"""Power of the context counts: rare contexts count for less (Levy, Goldberg & Dagan, 2015)."""


def cooccurrence_vectors(tokens: Tokens, vocab_size: int, d_model: int, std: float, seed: int) -> np.ndarray:
    """A vector for every token of the vocabulary; the same however many threads there are.

    Args:
        tokens: The training texts.
        vocab_size: Tokens V.
        d_model: Width D.
        std: Standard deviation of all values of the result.
        seed: Of the randomised SVD.

    Returns:
        float32 ``[V, D]``; a token that never stands beside another has zeros.
    """
    counts = _cooccurrences(tokens, vocab_size).tocoo()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    contexts = totals**_SMOOTHING
    contexts /= max(contexts.sum(), np.finfo(float).tiny)  # no text may have two tokens
    information = np.log(counts.data / (totals[counts.row] * contexts[counts.col]))
    keep = information > 0
    positive = csr_array((information[keep], (counts.row[keep], counts.col[keep])), shape=counts.shape)
    n_factors = min(d_model, vocab_size - 1)
    vectors = np.zeros((vocab_size, d_model))
    with threadpool_limits(1, user_api="blas"):  # two threads add in another order than one
        left, values, _ = randomized_svd(positive, n_factors, n_iter=3, random_state=seed % 2**32)
        vectors[:, :n_factors] = left * np.sqrt(values)
        # Factors come in order of weight; a random rotation spreads them evenly over the heads.
        rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d_model, d_model)))
        vectors = vectors @ rotation
    vectors[positive.sum(axis=1) == 0] = 0  # the SVD leaves rounding there
    scaled: np.ndarray = (vectors * (std / max(vectors.std(), np.finfo(float).tiny))).astype(np.float32)
    return scaled


def _cooccurrences(tokens: Tokens, vocab_size: int) -> csr_array:
    """Symmetric counts of pairs at distance 1 to the window's end, each weighted by 1 / distance."""
    ids, text = tokens.ids.astype(np.int64), np.repeat(np.arange(len(tokens)), tokens.lengths)
    counts = csr_array((vocab_size, vocab_size))
    for distance in range(1, _WINDOW + 1):
        same = text[:-distance] == text[distance:]
        left, right = ids[:-distance][same], ids[distance:][same]
        weights = np.full(len(left), 1.0 / distance)
        counts += coo_array((weights, (left, right)), shape=(vocab_size, vocab_size)).tocsr()
    both: csr_array = counts + counts.T
    return both
