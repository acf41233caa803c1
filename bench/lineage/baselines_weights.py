"""Published measures of how alike two models are that look at weights alone, each as its paper or its code defines it.

D is the width of the sequence. Where a paper writes ``x W``, our matrices are the transposes: ``[out, in]``.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from danlu.audit.alignment import TOKENS
from danlu.audit.checkpoint import Checkpoint
from scores import UndefinedError, read, shared_ids

__all__ = [
    "awm",
    "effective_rank",
    "fisher",
    "ghostspec_mse",
    "ics",
    "match",
    "norm_cosine",
    "pcs",
    "phi_u",
    "sigma_curves",
    "spearman_p",
    "spectrum_distance",
    "unbiased_cka",
    "walk",
]

_ATTENTION = ("q", "k", "v", "out")
_LAST_BLOCKS = 2
_N_TOKENS = 4096
_GAP = 1e-3
_SMALLEST = float(np.finfo(np.float64).tiny)


def norm_cosine(suspect: Checkpoint, reference: Checkpoint) -> float:
    """Mean over norms of the cosine of their gains, as the accusation of Solar-Open-100B had it (December 2025).

    No threshold was published: 0.989 was called proof, and was withdrawn. Gains are positive and near 1 in every model,
    so that it is near 1 for every pair; the folding of gains into matrices does not change that.
    """
    names = [name for name in reference.names if name.endswith("norm.weight") and _same_shape(name, suspect, reference)]
    if not names:
        raise UndefinedError("no norm has as many gains in both")
    return float(np.mean([_cosine(read(suspect, name), read(reference, name)) for name in names]))


def sigma_curves(suspect: Checkpoint, reference: Checkpoint) -> float:
    """Pearson correlation over layers of the standard deviations of Q, K, V and O, mean over the four (2507.03014).

    The shorter curve is interpolated where depths differ. No threshold with a null was published: 0.927 was called
    proof, and two unrelated models of 7B reach 0.91. Unchanged by any order and rotation, for they keep a matrix's
    spread; changed by gains that are folded in.
    """
    theirs, ours = (
        np.array(
            [[float(_attention(model, block, name).std()) for block in range(model.n_blocks)] for name in _ATTENTION]
        )
        for model in (suspect, reference)
    )
    depth = max(theirs.shape[1], ours.shape[1])
    if min(theirs.shape[1], ours.shape[1]) < 3:
        raise UndefinedError("a curve of fewer than three layers")
    pairs = [(_stretched(a, depth), _stretched(b, depth)) for a, b in zip(theirs, ours, strict=True)]
    if any(curve.std() < 1e-12 * abs(curve.mean()) for pair in pairs for curve in pair):
        raise UndefinedError("a curve that is flat")
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))


def pcs(suspect: Checkpoint, reference: Checkpoint) -> float:
    """Cosine of all parameters that have the same name and shape, as one vector (PCS of HuRef, 2312.04828).

    No threshold was published. Any change of order or basis breaks it.
    """
    names = [name for name in reference.names if _same_shape(name, suspect, reference)]
    if not names:
        raise UndefinedError("no parameter has the same shape in both")
    sums = np.zeros(3)
    for name in names:
        a, b = read(suspect, name).flatten(), read(reference, name).flatten()
        sums += [float(a @ b), float(a @ a), float(b @ b)]
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))


def ics(suspect: Checkpoint, reference: Checkpoint) -> float:
    """Cosine of standardised invariant terms of the last two layers (ICS of HuRef, 2312.04828).

    The terms are ``X Wq Wk' X'``, ``X Wv Wo X'`` and ``X (Wgate * Wup) Wdown X'``, in the paper's orientation, X being
    the vectors of the 4,096 rarest tokens that both know: for want of a count, those of the highest ids. Each term is
    standardised, so the cosine is the mean of the terms' Pearson correlations. No threshold was published. Unchanged
    by any order of the sequence's channels, any order of units and their scale, and rotations within heads. A rotation
    of the sequence breaks the third term, in which numbers of gate and up are multiplied one by one; gains that are
    folded in change all three.
    """
    their_ids, our_ids = (ids[-_N_TOKENS:] for ids in shared_ids(suspect, reference))
    x_theirs, x_ours = read(suspect, TOKENS)[their_ids], read(reference, TOKENS)[our_ids]
    n_blocks = min(_LAST_BLOCKS, suspect.n_blocks, reference.n_blocks)
    found = [
        _correlation_of_forms(x_theirs, a, x_ours, b)
        for back in range(n_blocks, 0, -1)
        for a, b in zip(_invariants(suspect, back), _invariants(reference, back), strict=True)
    ]
    return float(np.mean(found))


def ghostspec_mse(suspect: Checkpoint, reference: Checkpoint) -> float:
    """Minus the mean distance of aligned layers' spectra (GhostSpec-mse, 2511.06390).

    The singular values of ``Wq Wk'`` and of ``Wv Wo`` are cut to the smaller effective rank of the two (the exponential
    of the entropy of their shares: Roy & Vetterli, 2007), scaled to 0 to 1 and compared by their mean squared error.
    Layers are aligned by a dynamic programme in which every layer of the shallower model has one of the deeper. The
    paper maps the distance by a falling sigmoid fitted to its test pairs; that changes no ranking, so it is left out,
    and so its threshold has no counterpart here. Its cost of a layer that is passed over was not to be had: here 0.001,
    which matters where depths differ alone. Unchanged by any order and rotation; changed by gains that are folded in.
    """
    theirs, ours = ([_spectra(model, block) for block in range(model.n_blocks)] for model in (suspect, reference))
    distances = np.array(
        [[np.mean([spectrum_distance(a, b) for a, b in zip(x, y, strict=True)]) for y in ours] for x in theirs]
    )
    return 0.0 - walk(distances, _GAP) / min(distances.shape)


def awm(suspect: Checkpoint, reference: Checkpoint) -> float:
    """Unbiased linear CKA of aligned Q and K matrices, mean over both and over layers (AWM, 2510.06738).

    Channels of the sequence are matched, with signs, by a linear assignment on the absolute cosines of the embedding's
    columns over the tokens that both know. Where depths differ, layers are assigned by the same CKA. Published null:
    mean 0.00375 and standard deviation 0.0028 of 90 unrelated pairs; weakest relative at 12.1 of these above. Unchanged
    by a signed order of channels and by any rotation within Q and within K; broken by a rotation of the sequence.
    """
    their_ids, our_ids = shared_ids(suspect, reference)
    wide, narrow = read(suspect, TOKENS)[their_ids], read(reference, TOKENS)[our_ids]
    models = [suspect, reference]
    if wide.shape[1] < narrow.shape[1]:
        wide, narrow, models = narrow, wide, models[::-1]
    cosines = F.normalize(wide, dim=0).T @ F.normalize(narrow, dim=0)
    columns = torch.from_numpy(match(cosines.T.abs()))
    signs = cosines[columns, torch.arange(len(columns))].sign()
    likeness = np.zeros([model.n_blocks for model in models])
    same_depth = models[0].n_blocks == models[1].n_blocks
    for i, j in [(i, j) for i, j in np.ndindex(likeness.shape) if i == j or not same_depth]:
        pairs = [(_attention(models[0], i, name), _attention(models[1], j, name)) for name in ("q", "k")]
        likeness[i, j] = np.mean([unbiased_cka((a[:, columns] * signs).T, b.T) for a, b in pairs])
    chosen = (range(len(likeness)),) * 2 if same_depth else linear_sum_assignment(likeness, maximize=True)
    return float(likeness[chosen[0], chosen[1]].mean())


def phi_u(suspect: Checkpoint, reference: Checkpoint) -> float:
    """-log10 p of whether up-projections match in their order (phi_U of Zhu et al., 2502.12292).

    In every layer the units are matched by the cosines of their rows; Spearman's correlation of the matching with the
    identity gives a one-sided p by Student's t, and Fisher's method combines the layers. Made for two models of one
    architecture. The paper calls p below 0.05 a rejection; a p is not told apart from 2.2e-308. Any order of the
    units, and any rotation of the sequence, hides the relation.
    """
    if suspect.n_blocks != reference.n_blocks:
        raise UndefinedError("made for models of one architecture: depths differ")
    found = []
    for block in range(reference.n_blocks):
        theirs, ours = (read(model, f"blocks.{block}.feedforward.up.weight") for model in (suspect, reference))
        if theirs.shape != ours.shape:
            raise UndefinedError("made for models of one architecture: up-projections differ in shape")
        order = match(F.normalize(ours, dim=1) @ F.normalize(theirs, dim=1).T)
        found.append(spearman_p(order, np.arange(len(order))))
    return -float(np.log10(fisher(found)))


def match(likeness: torch.Tensor) -> np.ndarray:
    """For every row, or every column if these are fewer, what it is matched to so that the sum is largest."""
    table = likeness.numpy() if likeness.shape[0] <= likeness.shape[1] else likeness.T.numpy()
    return np.asarray(linear_sum_assignment(table, maximize=True)[1])


def spearman_p(first: np.ndarray, second: np.ndarray) -> float:
    """One-sided p of Spearman's correlation of two matchings, by Student's t; never below 2.2e-308."""
    r = min(1.0, float(stats.spearmanr(first, second).statistic))
    t = np.inf if r == 1.0 else r * np.sqrt((len(first) - 2) / (1 - r * r))
    return max(_SMALLEST, float(stats.t.sf(t, len(first) - 2)))


def fisher(p_values: list[float]) -> float:
    """One p for several independent ones; never below 2.2e-308."""
    return max(_SMALLEST, float(stats.chi2.sf(-2 * np.log(p_values).sum(), 2 * len(p_values))))


def unbiased_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Linear CKA of rows ``[n, any]`` with the unbiased estimator of HSIC (Song et al., 2012)."""
    a, b = (_centred_without_diagonal(each @ each.T) for each in (x, y))
    return float((a * b).sum() / (a.norm() * b.norm()))


def effective_rank(spectrum: np.ndarray) -> float:
    """The exponential of the entropy of singular values taken as shares (Roy & Vetterli, 2007)."""
    shares = spectrum / spectrum.sum()
    return float(np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()))


def spectrum_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared difference of two falling spectra, cut to the smaller effective rank, each scaled to 0 to 1."""
    n = max(2, int(min(effective_rank(a), effective_rank(b))))
    scaled = [(s[:n] - s[n - 1]) / max(_SMALLEST, s[0] - s[n - 1]) for s in (a, b)]
    return float(((scaled[0] - scaled[1]) ** 2).mean())


def walk(distances: np.ndarray, gap: float) -> float:
    """The smallest sum of distances in which every row has a later column than the one before it.

    Args:
        distances: Of layers; transposed if it has more rows than columns.
        gap: What a column costs that is passed over between two that are taken.
    """
    table = distances if distances.shape[0] <= distances.shape[1] else distances.T
    costs = table[0]
    for row in table[1:]:
        before = [min((costs[k] + (j - k - 1) * gap for k in range(j)), default=np.inf) for j in range(len(row))]
        costs = row + np.array(before)
    return float(costs.min())


def _same_shape(name: str, suspect: Checkpoint, reference: Checkpoint) -> bool:
    return name in suspect and suspect.shape(name) == reference.shape(name)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=0))


def _stretched(curve: np.ndarray, n: int) -> np.ndarray:
    return np.interp(np.linspace(0, len(curve) - 1, n), np.arange(len(curve)), curve)


def _attention(model: Checkpoint, block: int, name: str) -> torch.Tensor:
    return read(model, f"blocks.{block}.attention.{name}.weight")


def _for_every_head(model: Checkpoint, block: int, name: str, like: torch.Tensor) -> torch.Tensor:
    """Keys or values, ``[H K, D]``, repeated for the query heads that share them, so that there are as many as these.

    Raises:
        UndefinedError: They are shared, and nobody knows by how many heads.
    """
    matrix, n = _attention(model, block, name), len(like)
    if len(matrix) == n:
        return matrix
    d_value = model.traits.d_value
    if d_value is None or n % len(matrix):
        raise UndefinedError(f"{model.folder.name}: nobody knows which heads share keys and values")
    n_heads = len(_attention(model, block, "v")) // d_value
    return matrix.unflatten(0, (n_heads, -1)).repeat_interleave(n // len(matrix), dim=0).flatten(0, 1)


def _products(model: Checkpoint, block: int) -> list[torch.Tensor]:
    """``[D, D]``: what of queries and keys, and of values and outputs, is seen from the sequence."""
    queries, outputs = _attention(model, block, "q"), _attention(model, block, "out").T
    keys, values = (_for_every_head(model, block, *pair) for pair in (("k", queries), ("v", outputs)))
    return [queries.T @ keys, values.T @ outputs]


def _invariants(model: Checkpoint, back: int) -> list[torch.Tensor]:
    """The three forms of a block, counted from the last, which is 1."""
    block = model.n_blocks - back
    prefix = f"blocks.{block}.feedforward."
    up, down = read(model, prefix + "up.weight"), read(model, prefix + "down.weight")
    reads = up * read(model, prefix + "gate.weight") if prefix + "gate.weight" in model else up
    return [*_products(model, block), reads.T @ down.T]


def _correlation_of_forms(x: torch.Tensor, a: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson correlation of the entries of ``x a x'`` and ``y b y'``, which are never made."""

    def product(x: torch.Tensor, a: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> float:
        shared = x.T @ y
        return float((a.T @ shared @ b * shared).sum() / len(x) ** 2 - mean(x, a) * mean(y, b))

    def mean(x: torch.Tensor, a: torch.Tensor) -> float:
        return float(x.mean(0) @ a @ x.mean(0))

    return product(x, a, y, b) / float(np.sqrt(product(x, a, x, a) * product(y, b, y, b)))


def _spectra(model: Checkpoint, block: int) -> list[np.ndarray]:
    return [torch.linalg.svdvals(matrix).numpy() for matrix in _products(model, block)]


def _centred_without_diagonal(gram: torch.Tensor) -> torch.Tensor:
    n = len(gram)
    gram = gram - torch.diag(gram.diagonal())
    means = gram.sum(0) / (n - 2)
    means = means - means.sum() / (2 * (n - 1))
    gram = gram - means[:, None] - means
    return gram - torch.diag(gram.diagonal())
