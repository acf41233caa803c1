"""Packed matrices, packed here number by number as the formats are defined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from danlu.audit.checkpoint import Checkpoint
from danlu.core.errors import CorruptError, UsageError
from danlu.model.weights import save_tensors

IN, OUT, GROUP = 64, 16, 32
_AWQ = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which number of eight the lowest, second lowest, ... four bits of a word hold."""


def folder_of(path: Path, tensors: dict[str, torch.Tensor], settings: str = "{}") -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(settings)
    save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "model.safetensors", {})
    return path


def word(numbers: list[int], bits: int) -> int:
    """A signed 32-bit word, the first number in the lowest bits."""
    value = sum(number << (bits * place) for place, number in enumerate(numbers))
    return value - 2**32 if value >= 2**31 else value


def quantised(bits: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole numbers [IN, OUT], zero points and scales [groups, OUT]."""
    draw = np.random.default_rng(seed)
    numbers = draw.integers(0, 2**bits, (IN, OUT))
    zeros = draw.integers(1, 2**bits, (IN // GROUP, OUT))
    return numbers, zeros, draw.uniform(0.01, 0.1, zeros.shape).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("by_activation", [False, True])
def test_gptq_is_read_as_what_it_stands_for(tmp_path: Path, bits: int, form: str, by_activation: bool) -> None:
    numbers, zeros, scales = quantised(bits)
    in_word = 32 // bits
    less = 1 if form == "gptq" else 0
    groups = np.arange(IN) // GROUP
    if by_activation:
        groups = np.random.default_rng(1).permutation(groups)
    qweight = [[word(numbers[i : i + in_word, o].tolist(), bits) for o in range(OUT)] for i in range(0, IN, in_word)]
    qzeros = [[word((row[o : o + in_word] - less).tolist(), bits) for o in range(0, OUT, in_word)] for row in zeros]
    tensors = {
        "x.qweight": torch.tensor(qweight, dtype=torch.int32),
        "x.qzeros": torch.tensor(qzeros, dtype=torch.int32),
        "x.scales": torch.from_numpy(scales),
    }
    if by_activation:
        tensors["x.g_idx"] = torch.from_numpy(groups.astype(np.int32))
    settings = f'{{"quantization_config": {{"quant_method": "gptq", "checkpoint_format": "{form}"}}}}'
    expected = ((numbers - zeros[groups]) * scales[groups]).T
    with Checkpoint(folder_of(tmp_path / "m", tensors, settings)) as found:
        assert list(found.names) == ["x.weight"]
        assert found.shape("x.weight") == (OUT, IN)
        assert np.allclose(found.read("x.weight").numpy(), expected, atol=1e-6)


def test_awq_is_read_as_what_it_stands_for(tmp_path: Path) -> None:
    numbers, zeros, scales = quantised(4)

    def words(rows: np.ndarray) -> torch.Tensor:
        packed = [[word(row[o : o + 8][list(_AWQ)].tolist(), 4) for o in range(0, OUT, 8)] for row in rows]
        return torch.tensor(packed, dtype=torch.int32)

    tensors = {"x.qweight": words(numbers), "x.qzeros": words(zeros), "x.scales": torch.from_numpy(scales).half()}
    groups = np.arange(IN) // GROUP
    expected = ((numbers - zeros[groups]) * scales.astype(np.float16).astype(np.float32)[groups]).T
    with Checkpoint(folder_of(tmp_path / "m", tensors)) as found:
        assert np.allclose(found.read("x.weight").numpy(), expected, atol=1e-6)
        some = found.read("x.weight", rows=torch.tensor([3, 1]), columns=torch.tensor([5]))
        assert np.allclose(some.numpy(), expected[[3, 1]][:, [5]], atol=1e-6)


def test_eight_bits_with_scales_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    small = torch.randn(256, 300, generator=draw).to(torch.float8_e4m3fn)
    blocks = torch.rand(2, 3, generator=draw) + 0.5
    whole = torch.randint(-127, 128, (6, 10), generator=draw).to(torch.int8)
    tensors = {
        "a.weight": small,
        "a.weight_scale_inv": blocks,
        "b.weight": small.clone(),
        "b.weight_scale": torch.tensor(2.0),
        "c.weight": whole,
        "c.SCB": torch.arange(1.0, 7.0),
        "c.weight_format": torch.tensor(0, dtype=torch.uint8),
        "d.weight": small.clone(),
    }
    with Checkpoint(folder_of(tmp_path / "m", tensors)) as found:
        read = {name: found.read(name) for name in found.names}
    assert set(read) == {"a.weight", "b.weight", "c.weight", "d.weight"}
    assert torch.equal(read["a.weight"][130, 260], small.float()[130, 260] * blocks[1, 2])
    assert torch.equal(read["a.weight"][127, 127], small.float()[127, 127] * blocks[0, 0])
    assert torch.equal(read["b.weight"], small.float() * 2)
    assert torch.allclose(read["c.weight"], whole.float() * torch.arange(1.0, 7.0)[:, None] / 127)
    assert torch.equal(read["d.weight"], small.float())


@pytest.mark.parametrize(
    ("name", "packing"),
    [
        ("x.weight.absmax", "bitsandbytes 4-bit"),
        ("x.weight_packed", "compressed-tensors"),
        ("x.codebooks", "AQLM"),
        ("x.W_q", "HQQ"),
        ("x.down_proj_blocks", "MXFP4"),
    ],
)
def test_other_packings_are_refused_by_name(tmp_path: Path, name: str, packing: str) -> None:
    tensors = {name: torch.zeros(4, 4, dtype=torch.uint8)}
    with pytest.raises(UsageError, match=packing):
        Checkpoint(folder_of(tmp_path / "m", tensors))


def test_words_without_their_scales_are_damaged(tmp_path: Path) -> None:
    tensors = {"x.qweight": torch.zeros(8, 16, dtype=torch.int32), "x.qzeros": torch.zeros(2, 2, dtype=torch.int32)}
    with pytest.raises(CorruptError, match="scales is missing"):
        Checkpoint(folder_of(tmp_path / "m", tensors))
    tensors |= {"x.scales": torch.zeros(2, 16), "y.qweight": torch.zeros(6, 16, dtype=torch.int32)}
    tensors |= {"y.qzeros": torch.zeros(2, 3, dtype=torch.int32), "y.scales": torch.zeros(2, 32)}
    with pytest.raises(UsageError, match="of 3 bits"):
        Checkpoint(folder_of(tmp_path / "n", tensors))
