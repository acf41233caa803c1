"""Writing tensors to a file, with what went wrong said clearly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from danlu.core.errors import DanluError
from danlu.core.files import canonical_json
from danlu.core.merkle import merkle_root

__all__ = ["save_tensors", "weights_root"]


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write named tensors as a safetensors file.

    Args:
        tensors: The tensors.
        path: Where.
        about: What the file's header is to say of them.

    Raises:
        DanluError: The disk is full or may not be written to.
    """
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, about)
    except SafetensorError as error:  # it keeps the system's words and loses the number
        advice = "free some space, or set DANLU_HOME to a disk that has some; then run the same command again"
        raise DanluError(f"could not write: {error}", where=str(path), advice=advice) from error


def weights_root(tensors: Mapping[str, torch.Tensor]) -> str:
    """What stands for all weights of a model: a Merkle root over its tensors in order of name.

    A leaf is the canonical JSON of [name, dtype, shape, SHA-256 of the little-endian bytes].
    """

    def leaf(name: str) -> bytes:
        tensor = tensors[name].detach().cpu().contiguous()
        digest = hashlib.sha256(tensor.flatten().view(torch.uint8).numpy().data).hexdigest()
        return canonical_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), digest])

    return merkle_root(leaf(name) for name in sorted(tensors))
