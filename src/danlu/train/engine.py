"""One optimizer step, and everything that it leaves behind: weights, moments, and the mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from danlu.core.allocator import keep_freed_memory
from danlu.core.batch import Batch
from danlu.core.errors import DivergedError, UsageError
from danlu.core.seeds import Seeds
from danlu.model.base import Model
from danlu.model.layers.block import Block
from danlu.train.average import Average
from danlu.train.config import TrainConfig
from danlu.train.optimizer import make_optimizer
from danlu.train.world import World, assign, put_away, sync_now, whole

__all__ = ["Engine", "Feed", "Tensors", "Training", "plain_loss", "require_finite"]

Tensors = Mapping[str, Mapping[str, torch.Tensor]]
"""What a checkpoint holds: ``model``, ``optimizer`` and, where weights are averaged, ``average``; each name -> tensor.
"""


class Feed(Protocol):
    """The training data, step by step.

    Attributes:
        n_steps: Steps in the whole run.
        evaluate_after: Numbers of steps after which the model is evaluated; ``n_steps`` is among them.
    """

    n_steps: int
    evaluate_after: frozenset[int]

    @property
    def order_root(self) -> str:
        """What stands for the records of every step, in order."""
        ...

    def batch(self, step: int) -> Batch:
        """The batch of a step (0, 1, ...), on the CPU; the same each time it is asked for."""
        ...


def plain_loss(model: Model, batch: Batch) -> torch.Tensor:
    """The model's own loss of its answer to a batch."""
    return model.loss(model(batch), batch)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop works on.

    Attributes:
        module: The module with its initial weights.
        feed: The training data.
        seeds: The run's seeds; a step uses the ``dropout`` stream.
        config: How to train.
        evaluate: Scores the module on the validation split; ``"score"`` decides which weights are best (higher).
        loss: The scalar loss of the module on a batch; those of a batch's parts add up to that of the whole.
    """

    module: Model
    feed: Feed
    seeds: Seeds
    config: TrainConfig
    evaluate: Callable[[Model], dict[str, float]]
    loss: Callable[[Model, Batch], torch.Tensor] = plain_loss


class Engine:
    """A module with its optimizer.

    Args:
        work: What is trained and how.
        world: Who trains it; each takes its parts of every batch.

    Raises:
        UsageError: The config asks for something of Transformer blocks, and the module has none.
    """

    def __init__(self, work: Training, world: World = World()) -> None:  # noqa: B008 - it is frozen
        keep_freed_memory()
        self.model, self.config = work.module, work.config
        self.work, self.world = work, world
        self.device = next(work.module.parameters()).device
        if self.device.type == "cuda":  # cuDNN plans anew for every length of text, in 16 ms a layer; others need not
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.sharded = world.size > 1 and self.config.parallel == "fsdp"
        if self.sharded:
            world.shard(self.model)
        self._loss: nn.Module = _Loss(self.model, work.loss)
        if world.size > 1 and not self.sharded:
            all_used = self.model.signature.task != "masked-language-modelling"  # there, a pooler may have no part
            self._loss = world.alike(self._loss, all_used=all_used)
        self.optimizer = make_optimizer(self.model, self.config)
        self.average = Average(self.model, self.config.ema_decay) if self.config.ema_decay else None
        for block in _blocks(self.model, self.config):
            block.recompute = self.config.activation_checkpointing
            if self.config.compile_blocks:
                block.compile()

    def step(self, batch: Batch, step: int, rate: float) -> tuple[float, float]:
        """One optimizer step.

        Args:
            batch: On the CPU.
            step: Its number; dropout follows from it.
            rate: The learning rate.

        Returns:
            The loss, and the norm of the gradients before clipping.

        Raises:
            DivergedError: One of the two is not finite; the step is not taken.
        """
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.world.add(self._gradients(batch, step))
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm))
        value, size = torch.stack([loss, norm]).tolist()  # one wait for a GPU, not two
        moment = f"at step {step} (learning rate {rate:g}); the step was not taken, the last checkpoint is intact"
        require_finite("loss", value, moment)
        require_finite("norm of the gradients", size, moment)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)
        return value, size

    def _gradients(self, batch: Batch, step: int) -> torch.Tensor:
        """Add up the gradients of this process's parts of the batch, then those of all; the loss of its parts."""
        n, mine = self.world.share_out(self.config.accumulate)
        parts = batch.parts(n)
        total = torch.zeros((), device=self.device)
        for number in range(n)[mine]:
            # Everybody takes as many parts: who finds none left takes the first one again, and lets it count nothing.
            part, counts = (parts[number], 1) if number < len(parts) else (parts[0], 0)
            position = (step,) if n == 1 else (step, number)
            torch.manual_seed(self.work.seeds.at("dropout", *position))
            sync_now(self._loss, self.model, number + 1 == mine.stop)
            with self._precision():
                loss = self._loss(part.to(self.device)) * counts
            torch.autograd.backward(loss * self.world.size)  # of several processes' gradients the mean is taken
            total += loss.detach()
        return total

    def _precision(self) -> AbstractContextManager[object]:
        wanted = self.config.precision
        if wanted == "auto":
            able = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
            wanted = "bfloat16" if able else "float32"
        return nullcontext() if wanted == "float32" else torch.autocast(self.device.type, torch.bfloat16)

    @contextmanager
    def judged(self) -> Iterator[Model]:
        """The module as it would be kept, while the block lasts: not training, with the mean weights if there are."""
        self.model.eval()
        with torch.inference_mode(), nullcontext() if self.average is None else self.average.in_place():
            yield self.model
            put_away(self.model)

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """All that the next step depends on besides its number."""
        names: dict[torch.Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        moments = {
            f"{names[parameter]}/{slot}": tensor
            for parameter, slots in self.optimizer.state.items()
            for slot, tensor in slots.items()
        }
        found = {"model": self.model.state_dict(), "optimizer": moments}
        return found if self.average is None else {**found, "average": self.average.tensors}

    def load(self, tensors: Tensors) -> None:
        """Go back to what :meth:`tensors` gave."""
        self.load_weights({"model": tensors["model"]})
        parameters = dict(self.model.named_parameters())
        for key, tensor in tensors["optimizer"].items():
            name, _, slot = key.rpartition("/")
            self.optimizer.state[parameters[name]][slot] = _like(parameters[name], tensor)
        if self.average is not None:
            self.average.load(tensors["average"])

    def load_weights(self, tensors: Tensors) -> None:
        """Take the weights that were judged at a checkpoint."""
        if not self.sharded:
            self.model.load_state_dict({**tensors["model"], **tensors.get("average", {})})
            return
        for name, target in self.model.state_dict().items():
            assign(target, tensors.get("average", {}).get(name, tensors["model"][name]))


class _Loss(nn.Module):
    """The loss of a model as a module, so that whatever wraps modules wraps all of a step's work."""

    def __init__(self, model: Model, loss: Callable[[Model, Batch], torch.Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.loss(self.model, batch)


def _like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """An optimizer's tensor where its parameter is; each process has its share of both."""
    if tensor.shape != parameter.shape:
        return tensor.to(parameter.device)
    mine = torch.empty_like(parameter)
    assign(mine, tensor)
    return mine


def _blocks(model: nn.Module, config: TrainConfig) -> list[Block]:
    """The Transformer blocks, where something is asked of them."""
    asked = [name for name in ("activation_checkpointing", "compile_blocks") if getattr(config, name)]
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if asked and not blocks:
        what = f"train.{asked[0]} is for Transformer blocks, and this model has none"
        raise UsageError(what, where="train", advice=f"leave train.{asked[0]} out")
    return blocks


def require_finite(what: str, value: float, moment: str) -> None:
    """Raise a DivergedError unless a value is finite."""
    if not math.isfinite(value):
        raise DivergedError(
            f"the {what} is {value} {moment}",
            where="training",
            advice="lower train.learning_rate or train.clip_norm, or look for broken records (danlu data)",
        )
