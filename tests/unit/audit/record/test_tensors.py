"""The root over tensors depends on what they hold, not on what they are called or where they lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from danlu.audit.record.tensors import tensor_digests, tensor_root
from danlu.core.errors import CorruptError

A, B = torch.arange(6, dtype=torch.float32).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)


def folder(path: Path, **files: dict[str, torch.Tensor]) -> Path:
    for name, tensors in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path / f"{name}.safetensors", {"format": "pt"})
    return path


def test_names_and_files_do_not_matter(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", model={"a": A, "b": B})
    other = folder(tmp_path / "other", first={"x.weight": B}, second={"y": A})
    assert tensor_root(one) == tensor_root(other)
    assert tensor_root(one)[1] == 2


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": A, "b": B + 1},
        {"a": A.reshape(3, 2), "b": B},
        {"a": A.view(torch.int32), "b": B},
        {"a": A},
        {"a": A, "b": B, "c": B.clone()},
    ],
    ids=["value", "shape", "precision", "one less", "one twice"],
)
def test_everything_else_does(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    before = tensor_root(folder(tmp_path / "one", model={"a": A, "b": B}))
    assert tensor_root(folder(tmp_path / "other", model=tensors)) != before


def test_a_folder_without_tensors_has_none(tmp_path: Path) -> None:
    assert tensor_root(tmp_path)[1] == 0


@pytest.mark.parametrize("cut", [4, 30, -3])
def test_a_file_that_is_none_is_told_of(tmp_path: Path, cut: int) -> None:
    path = folder(tmp_path, model={"a": A}) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptError, match="not a safetensors file"):
        list(tensor_digests(path))


@pytest.mark.parametrize("header", [b"[]", b'{"a": 1}', b'{"a": {"data_offsets": [0], "shape": [], "dtype": "F32"}}'])
def test_a_header_that_is_none_is_told_of(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CorruptError, match="not a safetensors file"):
        tensor_root(tmp_path)
