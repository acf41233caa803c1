"""What a recipe's ``train`` section says: what is made, and how the making is carried out."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from danlu.core.config import Config
from danlu.train.adapt import AdaptConfig
from danlu.train.optimizer import OptimizerConfig

__all__ = ["RunConfig", "TrainConfig"]


class RunConfig(Config):
    """How a run is carried out. None of it decides what comes out, so that any of it may change while a run rests."""

    processes: int = Field(1, ge=1)
    """Processes that train together on this machine; under ``torchrun`` it is torchrun that says how many."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What each of several processes keeps: ``ddp`` all weights, ``fsdp`` a share of each (FSDP2), for large models."""
    restarts: int = Field(0, ge=0)
    """How often several processes are started again, from the last checkpoint, when one of them has died."""
    resume: bool = False
    """Whether to go on with the last interrupted run of this name although the recipe has changed since."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Longest time between two checkpoints; one is also written before every evaluation."""
    tensorboard: bool = False
    """Whether the curves of training are also written as event files, which TensorBoard reads."""
    profile_steps: int = Field(0, ge=0)
    """Steps whose operations are recorded, for a trace and a table in the model's folder and in the report."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept besides the best one: the last, and those before in case it is damaged."""
    keep_every: int | None = Field(None, ge=1)
    """Checkpoints of steps divisible by this are kept until the run ends; null: none."""
    keep_checkpoints: bool = False
    """Whether the checkpoints that were kept stay in the run's folder when it has ended: parts of the run can then be
    trained again from there, to prove them (``danlu verify``), and not only from the start."""


class TrainConfig(OptimizerConfig, RunConfig):
    """How a model is trained."""

    epochs: int = Field(8, ge=1)
    """Passes over the training records."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, the learning rate being at its end by then; null: after the epochs."""
    batch_tokens: int = Field(2048, ge=1)
    """The most tokens in a batch, padding included; a picture counts as one."""
    accumulate: int = Field(1, ge=1)
    """Parts that a batch is worked on in, one after another: the step is that of the whole batch, in less memory."""
    clip_norm: float = Field(1.0, gt=0)
    """Gradients with a larger norm are scaled down to it (Pascanu et al., 2013)."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of a running mean of the weights, which is then what is judged and kept (Polyak & Juditsky, 1992); 0: none.
    """
    patience: int = Field(3, ge=1)
    """Stop after so many evaluations in a row without a better score."""
    evaluations_per_epoch: int = Field(1, ge=1)
    """How often in an epoch, or in what ``max_steps`` leaves of it, the model is evaluated on the validation split."""
    adapt: AdaptConfig = AdaptConfig()
    """Which weights are trained, where the model starts from a checkpoint."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In what the forward pass computes; weights stay float32. ``auto``: bfloat16 on GPUs that have it, else float32.
    """
    activation_checkpointing: bool = False
    """Whether the inside of a block is computed again in the backward pass, to save memory (Chen et al., 2016)."""
    compile_blocks: bool = False
    """Whether Transformer blocks are compiled (``torch.compile``)."""

    def carried_out_as(self, how: RunConfig) -> Self:
        """This config, and where it says nothing of its own of how it is carried out, what another says."""
        said = {name: getattr(how, name) for name in RunConfig.model_fields if name not in self.model_fields_set}
        return self.model_copy(update=said)

    def made(self) -> dict[str, Any]:
        """What decides what comes out: all but :class:`RunConfig`."""
        return {name: value for name, value in self.plain().items() if name not in RunConfig.model_fields}
