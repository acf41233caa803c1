"""The processes that train one model together: started by torchrun, talking through ``torch.distributed``.

Every process prepares the same run and takes its parts of every batch, so that the order of the data is the same
however many there are. The first one (rank 0) also does all that happens once: it leads, the others attend.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree

from danlu.core.batch import Output, Unscored
from danlu.core.errors import DanluError
from danlu.model.layers.block import Block

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

__all__ = ["World", "alone_explained", "assign", "is_share", "put_away", "sync_now", "whole"]

_PATIENCE = timedelta(days=7)
"""How long the others wait while the first one prepares data or judges a model."""


@dataclass(frozen=True)
class World:
    """Who trains together.

    Attributes:
        rank: Which of them this process is.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def now(cls) -> World:
        """The world of this process; it is alone unless :meth:`joined` it to others."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[World]:
        """Meet the processes that torchrun started beside this one, while the block lasts."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            yield cls()
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        # Those who died may have left their addresses in it.
        store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        try:
            yield cls.now()
        finally:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this is the process that does what happens once."""
        return self.rank == 0

    def share_out(self, n_wanted: int) -> tuple[int, slice]:
        """How many parts a batch is cut into, at least as many as wanted, and which of them are this process's."""
        each = -(-n_wanted // self.size)
        return each * self.size, slice(self.rank * each, (self.rank + 1) * each)

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of everybody's."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def told(self, values: Sequence[float]) -> list[float]:
        """What the first one says, whatever the others say; as many values everywhere."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64)
        dist.broadcast(tensor, 0)
        found: list[float] = tensor.tolist()
        return found

    def message(self, value: Any = None) -> Any:
        """The first one's JSON value, of any length."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.leads else b""
        (length,) = self.told([len(text)])
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return json.loads(content.numpy().tobytes())

    def together(self) -> None:
        """Wait until everybody is here."""
        if self.size > 1:
            dist.barrier()

    def shard(self, model: nn.Module) -> None:
        """Let every process keep its share of each weight only (FSDP2); gathered block by block where it is needed."""
        from torch.distributed.fsdp import fully_shard

        if Output not in _pytree.SUPPORTED_NODES:
            for record in (Output, Unscored):  # so that it finds the tensors in what the model answers
                _pytree.register_dataclass(record)
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        mesh = init_device_mesh(kind, (self.size,))
        for block in [module for module in model.modules() if isinstance(module, Block)]:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def alike(self, loss: nn.Module, *, all_used: bool) -> nn.Module:
        """Let every process keep all weights, their gradients being averaged as they come (DDP)."""
        return DistributedDataParallel(loss, find_unused_parameters=not all_used)


@contextmanager
def alone_explained() -> Iterator[None]:
    """Say clearly that another process is gone, where torch says that a connection was closed.

    Raises:
        DanluError: It is.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise DanluError(
            "another of the processes that train together is gone",
            where="training",
            advice="see what it said; the same command goes on from the last checkpoint",
        ) from error


def is_share(tensor: torch.Tensor) -> TypeGuard[DTensor]:
    """Whether this process has a share of the tensor only."""
    if not dist.is_initialized():
        return False  # and sharding, which takes long to import, is not
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the shares of all processes, which must all ask for it; one that is whole stays what it is."""
    if is_share(tensor):
        full: torch.Tensor = tensor.full_tensor()
        return full
    return tensor


@torch.no_grad()
def assign(target: torch.Tensor, value: torch.Tensor) -> None:
    """Write a whole tensor into one of which this process may have a share only."""
    if is_share(target) and not is_share(value):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)


def put_away(model: nn.Module) -> None:
    """Let go of what others' shares were gathered for a forward pass that no backward pass followed."""
    for module in model.modules():
        if _is_sharded(module):
            module.reshard()


def sync_now(loss: nn.Module, model: nn.Module, now: bool) -> None:
    """Whether the next backward pass brings the gradients together, or only adds to them."""
    if isinstance(loss, DistributedDataParallel):
        loss.require_backward_grad_sync = now
    if _is_sharded(model):
        model.set_requires_gradient_sync(now)


def _is_sharded(module: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether each process keeps a share of the module's weights."""
    if not dist.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)
