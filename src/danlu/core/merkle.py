"""One digest of many things, any one of which can be proven to be among them without showing the others.

The tree of RFC 6962 (Certificate Transparency), section 2.1: a leaf is SHA-256(0x00 ‖ its bytes), a node
SHA-256(0x01 ‖ left ‖ right), so that no node can be taken for a leaf; the root of nothing is SHA-256 of nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["merkle_root"]


def merkle_root(leaves: Iterable[bytes | memoryview]) -> str:
    """The root of a Merkle tree, in hexadecimal.

    Args:
        leaves: The bytes of every leaf, in order; they are asked for one after the other.
    """
    sha256 = hashlib.sha256
    level = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    if not level:
        return sha256().hexdigest()
    while len(level) > 1:  # who is left without a neighbour goes up as it is: the same tree as by powers of two
        alone = level[len(level) & ~1 :]
        level = [sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)] + alone
    return level[0].hex()
