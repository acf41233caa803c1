"""What two models share to the last bit, whatever their tensors are called and however they lie in files."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from danlu.audit.checkpoint import Checkpoint
from danlu.core.artifact import RECORD
from danlu.core.files import sha256_file

__all__ = ["Content", "compare_content", "file_digests", "root_of", "rounded", "tensor_digests"]

_COARSE = {"F64": 0, "F32": 1, "F16": 2, "BF16": 3}
_AT_ONCE = 2**20
"""Numbers that are hashed together."""
_KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is the same.

    Attributes:
        share: Of the suspect's numbers, those in tensors that the reference has too; tensors that hold one number over
            and over left out.
        rounded_share: The same after both were rounded to the coarser of their precisions.
        origins: Parameters of the suspect that the reference has too, after rounding, and what they are called there.
        precision: What was rounded to.
        root: Digest of all tensors of the suspect, that does not depend on their names or files,
        reference_root: and of the reference.
    """

    share: float
    rounded_share: float
    origins: dict[str, str]
    precision: str
    root: str
    reference_root: str


def compare_content(suspect: Checkpoint, reference: Checkpoint) -> Content:
    """Look for the suspect's tensors among those of the reference; each is read once for each precision."""
    coarser = max(suspect.kind, reference.kind, key=lambda kind: _COARSE.get(kind, 0))
    exact = [tensor_digests(each, None) for each in (suspect, reference)]
    rounded_digests = [
        digests if {tensor.kind for tensor in each.stored} == {coarser} else tensor_digests(each, coarser)
        for each, digests in zip((suspect, reference), exact, strict=True)
    ]
    rounded_share, origins = _shared(suspect, *rounded_digests)
    return Content(
        share=_shared(suspect, *exact)[0],
        rounded_share=rounded_share,
        origins=origins,
        precision=coarser,
        root=root_of(exact[0]),
        reference_root=root_of(exact[1]),
    )


def rounded(tensor: torch.Tensor, precision: str | None) -> torch.Tensor:
    """Float32 numbers rounded to a precision of safetensors; to none that has other numbers than those."""
    return tensor.to(_KINDS[precision]).float() if precision in _KINDS else tensor


def tensor_digests(checkpoint: Checkpoint, kind: str | None) -> dict[str, str | None]:
    """SHA-256 of every parameter's shape and numbers, rounded to a precision before; None: all one number."""
    return {name: _digest(checkpoint.read(name), kind) for name in checkpoint.names}


def _digest(tensor: torch.Tensor, kind: str | None) -> str | None:
    """Of float32 numbers piece by piece; of a piece whose numbers all have 16 bits and then zeros, of these 16 alone.

    So it depends on the numbers, not on the precision that they are stored in, and little is hashed twice as zeros.
    """
    if tensor.numel() == 0:
        return None
    digest = hashlib.sha256(",".join(map(str, tensor.shape)).encode() + b";")
    first, constant = rounded(tensor.flatten()[:1], kind), True
    for part in torch.split(tensor.reshape(-1), _AT_ONCE):
        piece = rounded(part, kind)
        constant = constant and bool((piece == first).all())
        low, high = piece.view(torch.int16).reshape(-1, 2).T
        is_short = not bool(low.any())
        digest.update(b"16" if is_short else b"32")
        digest.update((high.contiguous() if is_short else piece).numpy().data)
    return None if constant else digest.hexdigest()


def _shared(
    suspect: Checkpoint, theirs: dict[str, str | None], ours: dict[str, str | None]
) -> tuple[float, dict[str, str]]:
    """What share of the suspect's numbers the reference has too, and under which names."""
    known = {digest: name for name, digest in reversed(ours.items()) if digest is not None}
    sizes = {name: math.prod(suspect.shape(name)) for name, digest in theirs.items() if digest is not None}
    shared = {name: known[digest] for name, digest in theirs.items() if digest is not None and digest in known}
    return sum(sizes[name] for name in shared) / max(1, sum(sizes.values())), shared


def root_of(digests: dict[str, str | None]) -> str:
    """One digest of all, in any order."""
    leaves = sorted(digest for digest in digests.values() if digest is not None)
    return hashlib.sha256("\n".join(leaves).encode()).hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a model's folder by its path there; hidden files and its record are left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: sha256_file(path) for name, path in names.items() if not name.startswith((".", f"{RECORD}/"))}
