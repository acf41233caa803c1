"""Matrices of checkpoints that were packed into few bits, as the numbers that they stand for.

==================  =======================================================================================
GPTQ                ``qweight``, ``qzeros``, ``scales``, maybe ``g_idx``: 32-bit words along the inputs; the
                    zero points are stored less one, except in files that call themselves ``gptq_v2``
AWQ (``gemm``)      the same names: 32-bit words along the outputs, of which every eight stand in another order
scaled              8-bit floats or integers beside ``weight_scale`` or ``weight_scale_inv``, one for the matrix, a
                    row, or a square block
bitsandbytes int8   integers beside ``SCB``, 127 times the scale of a row
==================  =======================================================================================

Other ways of packing are refused by name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from danlu.core.errors import CorruptError, UsageError
from danlu.model.pretrained.files import COPY_AGAIN, StoredTensor

__all__ = ["Matrix", "unpacked"]

_WORDS = ("qweight", "qzeros", "scales", "g_idx")
_SCALES = ("weight_scale", "weight_scale_inv", "SCB")
_BESIDE = {*_WORDS, *_SCALES, "weight_format", "input_scale", "activation_scale", "output_scale"}
_REFUSED = {
    "absmax": "bitsandbytes 4-bit",
    "quant_map": "bitsandbytes 4-bit",
    "weight_packed": "compressed-tensors in words",
    "codebooks": "AQLM",
    "W_q": "HQQ",
    "qscales": "a packing without a known name",
}
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which four bits of a word, counted from the lowest, hold its first, second, ... number."""
_FEW_BITS = {"F8_E4M3", "F8_E5M2", "I8"}


@dataclass(frozen=True)
class Matrix:
    """A tensor of a checkpoint, not yet read.

    Attributes:
        name: What the file calls it; of a packed one, what it would be called if it were not.
        shape: Its shape.
        read: Reads it; the file is opened for that alone, so that no more of it stays in memory than is kept.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def unpacked(tensors: Iterable[StoredTensor], settings: Mapping[str, Any], where: str) -> list[Matrix]:
    """The tensors of a checkpoint, packed ones as what they stand for.

    Args:
        tensors: As the files have them.
        settings: ``config.json``.
        where: The folder, for messages.

    Raises:
        UsageError: They are packed in a way that is not known.
        CorruptError: Tensors that belong together do not fit.
    """
    modules: defaultdict[str, dict[str, StoredTensor]] = defaultdict(dict)
    for tensor in tensors:
        module, _, leaf = tensor.name.rpartition(".")
        if leaf in _REFUSED or ".quant_state." in tensor.name:
            raise _refusal(tensor, _REFUSED.get(leaf, "bitsandbytes 4-bit"), where)
        if leaf.endswith("_blocks") and tensor.kind == "U8":
            raise _refusal(tensor, "MXFP4", where)
        modules[module][leaf] = tensor
    found = []
    for module, leaves in modules.items():
        if "qweight" in leaves:
            found.append(_words(module, leaves, settings, where))
        scale = next((leaves[name] for name in _SCALES if name in leaves), None)
        for leaf, tensor in leaves.items():
            if leaf == "weight" and tensor.kind in _FEW_BITS and scale is not None:
                found.append(_scaled(tensor, scale))
            elif leaf not in _BESIDE:
                found.append(Matrix(tensor.name, tuple(tensor.shape), _reader(tensor)))
    return found


def _reader(tensor: StoredTensor) -> Callable[[], torch.Tensor]:
    path, name = tensor.path, tensor.name
    return lambda: _read(path, name)


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def _refusal(tensor: StoredTensor, packing: str, where: str) -> UsageError:
    advice = "have the tool that packed it write it out in 16 bits, and audit that"
    return UsageError(f"{tensor.name} is packed ({packing}), which the audit does not read", where=where, advice=advice)


def _scaled(tensor: StoredTensor, scale: StoredTensor) -> Matrix:
    per_step = 1 / 127 if scale.name.endswith("SCB") else 1.0
    numbers, scales = _reader(tensor), _reader(scale)
    rows, columns = shape = tuple(tensor.shape)

    def read() -> torch.Tensor:
        steps = scales().float() * per_step
        if steps.ndim == 2 and steps.shape != (rows, 1) and steps.numel() > 1:  # one a square block
            height, width = (_block(n, m) for n, m in zip(shape, steps.shape, strict=True))
            steps = steps.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :columns]
        else:
            steps = steps.reshape(-1, 1)
        return numbers().float() * steps

    if math.prod(scale.shape) not in (1, rows) and len(scale.shape) != 2:
        raise tensor.wrong(f"has shape {list(shape)}, its scale {list(scale.shape)}")
    return Matrix(tensor.name, shape, read)


def _block(n: int, n_blocks: int) -> int:
    """The side of a block: the power of two of which so many are needed."""
    return 1 << (math.ceil(n / n_blocks) - 1).bit_length()


def _words(module: str, leaves: Mapping[str, StoredTensor], settings: Mapping[str, Any], where: str) -> Matrix:
    """A matrix of 32-bit words, by GPTQ or AWQ, which the shapes tell apart."""
    name = f"{module}.weight" if module else "weight"
    if missing := [leaf for leaf in ("qzeros", "scales") if leaf not in leaves]:
        what = f"{module}.{missing[0]} is missing beside {module}.qweight"
        raise CorruptError(what, where=where, advice=COPY_AGAIN)
    (n_words, width), (n_groups, n_out) = (leaves[leaf].shape for leaf in ("qweight", "scales"))
    bits = 32 * leaves["qzeros"].shape[1] // n_out
    told = settings.get("quantization_config") or {}
    along_inputs = width == n_out
    if bits not in (2, 4, 8) or not (along_inputs or (bits == 4 and width * 8 == n_out)):
        raise _refusal(leaves["qweight"], f"{told.get('quant_method', 'words')} of {bits} bits", where)
    n_in = n_words * 32 // bits if along_inputs else n_words
    less = 1 if along_inputs and told.get("checkpoint_format", "gptq") != "gptq_v2" else 0
    readers = {leaf: _reader(tensor) for leaf, tensor in leaves.items() if leaf in _WORDS}

    def read() -> torch.Tensor:
        words = {leaf: reader() for leaf, reader in readers.items()}
        if along_inputs:
            numbers, zeros = _bits(words["qweight"].T, bits).T, _bits(words["qzeros"], bits)
        else:
            numbers, zeros = (_bits(words[leaf], bits, _AWQ_ORDER) for leaf in ("qweight", "qzeros"))
        group = words["g_idx"].long() if "g_idx" in words else torch.arange(n_in) // math.ceil(n_in / n_groups)
        zeros = (zeros + less) & (2**bits - 1) if less else zeros
        steps = words["scales"].float()
        return ((numbers - zeros[group]).float() * steps[group]).T

    return Matrix(name, (n_out, n_in), read)


def _bits(words: torch.Tensor, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """The whole numbers in 32-bit words, lowest bits first: ``[n, m]`` -> int32 ``[n, m * 32 / bits]``."""
    shifts = torch.arange(0, 32, bits) if order is None else bits * torch.tensor(order)
    numbers: torch.Tensor = (words[:, :, None] >> shifts.int()) & (2**bits - 1)
    return numbers.flatten(1)
