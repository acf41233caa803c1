"""Tensors of which each process has a share, on disk: every process writes its own, anybody reads the whole.

By ``torch.distributed.checkpoint``, as safetensors files that say where in the tensor their share lies.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from danlu.core.errors import CorruptError, DanluError

__all__ = ["load_shards", "save_shards"]


def save_shards(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write this process's shares; every process calls it with the same folder on a disk that they share.

    Raises:
        DanluError: A process could not write.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        advice = "free some space, or set DANLU_HOME to a disk that all processes may write to; then run it again"
        raise DanluError(f"process {rank} could not write: {reason}", where=str(folder), advice=advice) from error


def load_shards(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor, put together from the shares of however many processes wrote them.

    Raises:
        CorruptError: The files do not make whole tensors.
    """
    reader = HuggingFaceStorageReader(str(folder))
    found: dict[str, torch.Tensor] = {}
    for name, about in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(about, TensorStorageMetadata), "only tensors were written"
        found[name] = torch.empty(about.size, dtype=about.properties.dtype)
    try:
        with warnings.catch_warnings():  # that it reads alone is meant
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(found, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except CheckpointException as error:
        raise CorruptError("its parts do not fit together", where=str(folder)) from error
    return found
