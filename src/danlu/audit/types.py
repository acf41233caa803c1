"""What was done to a model whose kinship with a reference is shown, in words."""

from __future__ import annotations

from danlu.audit.aligned import Alignment
from danlu.audit.alignment import TOKENS
from danlu.audit.changes import Changes
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.content import Content
from danlu.audit.merging import Merge
from danlu.audit.units import blocks_of

__all__ = ["name_types"]

_ALL = 0.999
_BY_CHANGE = {
    "rounded": "repackaged",
    "quantised": "quantised",
    "pruned": "pruned",
    "low rank": "LoRA merged",
    "noise": "noise added",
    "trained": "trained further",
}


def name_types(
    suspect: Checkpoint,
    reference: Checkpoint,
    found: Alignment,
    content: Content,
    changes: Changes,
    merge: Merge | str | None,
) -> tuple[str, ...]:
    """What was done.

    Returns:
        Of ``experts upcycled``, ``depth changed``, ``width changed``, ``partial``, ``merged``, ``identical``,
        ``repackaged``, ``quantised``, ``pruned``, ``LoRA merged``, ``noise added``, ``trained further``, ``derived``.
    """
    if all(kind == "unrelated" for kind in changes.kinds.values()):
        return ("derived",)
    types = ["experts upcycled"] if _has_experts(suspect) and not _has_experts(reference) else []
    shares = [share for part, share in changes.parts.items() if part != "embeddings"]
    if any(shares) and found.layer_map != tuple(range(reference.n_blocks)):
        types.append("depth changed")
    if _other_width(suspect, reference):
        types.append("width changed")
    if any(kind == "unrelated" for kind in changes.kinds.values()):
        types.append("partial")
    if isinstance(merge, Merge) and merge.is_merged:
        return (*types, "merged")
    if content.share > _ALL and not types:
        same_names = {tensor.name for tensor in suspect.stored} == {tensor.name for tensor in reference.stored}
        return ("identical",) if same_names else ("repackaged",)
    if changes.most() != "unchanged":
        types.append(_BY_CHANGE[changes.most()])
        if changes.most() == "noise" and found.rotation is None and _trained_beneath(changes):
            types.append("trained further")
    elif not types:
        types.append("repackaged")
    return tuple(types)


def _trained_beneath(changes: Changes) -> bool:
    """Whether noise does not hide all of a training; what is known only roughly, as after scaling, does not say so."""
    return any(kind == "trained" and name not in changes.scaled for name, kind in changes.kinds.items())


def _has_experts(model: Checkpoint) -> bool:
    return any(block.owner for block in blocks_of(model, "feed-forward"))


def _other_width(suspect: Checkpoint, reference: Checkpoint) -> bool:
    """Whether sequences or feed-forward parts of the two are of different width."""
    names = ((TOKENS, 1), ("blocks.0.feedforward.down.weight", 1))
    both = [(name, axis) for name, axis in names if name in suspect and name in reference]
    return any(suspect.shape(name)[axis] != reference.shape(name)[axis] for name, axis in both)
