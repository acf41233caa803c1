"""What was done to a model whose kinship with a reference is shown, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from danlu.audit.changes import Changes
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.clones import Clones
from danlu.audit.content import Content
from danlu.audit.unit_order import OrderTest
from danlu.audit.units import Component

__all__ = ["name_types"]

_MOVED = 0.5
"""Share of units that have changed places, from which on that was done."""
_FOUND = 0.3
"""Share of units that two ways of matching must find again before their places mean anything."""
_SCALED = 0.2
"""Standard deviation of the logarithm of how much longer units' inputs have become, that training does not bring."""
_ALL = 0.999
_CLEAR = 5.0
"""z of a component or block from which on it counts as derived, once kinship is proven."""

_BY_CHANGE = {"quantised": "quantised", "pruned": "pruned", "low rank": "LoRA merged", "trained": "trained further"}


def name_types(
    suspect: Checkpoint,
    reference: Checkpoint,
    order: Mapping[Component, OrderTest | str],
    clones: Clones | None,
    content: Content,
    changes: Changes | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What was done, and what was done to hide it.

    Returns:
        Types, of ``identical``, ``repackaged``, ``depth changed``, ``partial``, ``quantised``, ``pruned``,
        ``LoRA merged``, ``trained further``; disguises, of ``rotated``, ``reordered``, ``rescaled``.
    """
    test = order.get("feed-forward")
    disguises = []
    if isinstance(test, OrderTest) and test.basis != "same" and test.z > _CLEAR and changes is None:
        disguises.append("rotated")
    if clones is not None and clones.share > _FOUND and clones.moved > _MOVED:
        disguises.append("reordered")
    if isinstance(test, OrderTest) and test.basis == "same" and _rescaled(suspect, reference, test.layer_map):
        disguises.append("rescaled")
    types = []
    if isinstance(test, OrderTest) and test.z > _CLEAR and test.layer_map != tuple(range(reference.n_blocks)):
        types.append("depth changed")
    if _partial(order):
        types.append("partial")
    if content.share > _ALL and suspect.n_blocks == reference.n_blocks:
        same_names = {tensor.name for tensor in suspect.stored} == {tensor.name for tensor in reference.stored}
        types.append("identical" if same_names else "repackaged")
    elif content.rounded_share > _ALL:
        types.append("repackaged")
    elif changes is not None and changes.most() != "unchanged":
        types.append(_BY_CHANGE[changes.most()])
    elif not types:
        types.append("derived")
    return tuple(types), tuple(disguises)


def _partial(order: Mapping[Component, OrderTest | str]) -> bool:
    """Whether some components or blocks are the reference's and others are clearly not."""
    z = [np.array(test.z_blocks) for test in order.values() if isinstance(test, OrderTest)]
    if not z:
        return False
    own = np.concatenate(z)
    return bool((own > _CLEAR).any() and (own < _CLEAR / 2).any())


def _rescaled(suspect: Checkpoint, reference: Checkpoint, layer_map: tuple[int, ...]) -> bool:
    """Whether units read more and write less, or the other way round, by the same factor."""
    logs = []
    for block, origin in enumerate(layer_map):
        names = ("feedforward.up.weight", "feedforward.down.weight")
        up, down = (
            (suspect.read(f"blocks.{block}.{name}"), reference.read(f"blocks.{origin}.{name}")) for name in names
        )
        if up[0].shape != up[1].shape:
            return False
        logs.append(
            np.stack(
                [
                    (up[0].norm(dim=1) / up[1].norm(dim=1)).log().numpy(),
                    (down[0].norm(dim=0) / down[1].norm(dim=0)).log().numpy(),
                ]
            )
        )
    read, written = np.concatenate(logs, axis=1)
    return bool(read.std() > _SCALED and np.corrcoef(read, written)[0, 1] < -0.9)
