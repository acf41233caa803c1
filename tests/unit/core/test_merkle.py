from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.merkle import merkle_root

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Of the first 0, 1, ... 8 leaves: the test vectors that implementations of Certificate Transparency share."""


@pytest.mark.parametrize("n", range(9))
def test_roots_are_those_of_certificate_transparency(n: int) -> None:
    assert merkle_root(bytes.fromhex(leaf) for leaf in LEAVES[:n]) == ROOTS[n]


def by_the_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if len(leaves) < 2:
        return hashlib.sha256(b"\x00" + leaves[0]).digest() if leaves else hashlib.sha256().digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_the_definition(leaves[:k]) + by_the_definition(leaves[k:])).digest()


@given(st.lists(st.binary(max_size=5), max_size=40))
def test_it_is_the_tree_of_the_definition(leaves: list[bytes]) -> None:
    assert merkle_root(leaves) == by_the_definition(leaves).hex()
    assert merkle_root(memoryview(leaf) for leaf in leaves) == merkle_root(leaves)
