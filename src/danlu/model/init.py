"""Initial weights that can be regenerated bit for bit from the seed.

Every parameter has a generator of its own, derived from the ``init`` stream and the parameter's name, so that its
values do not depend on what other parameters there are or in which order they are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from danlu.core.seeds import Seeds

__all__ = ["EMBEDDING_STD", "initial_weights", "initialise", "standard_rows"]

EMBEDDING_STD = 0.05
"""Of token vectors: larger than BERT's 0.02, because they also score the tokens and so set the scale of its logits."""


def initialise(model: nn.Module, seeds: Seeds) -> None:
    """Set every parameter; see :func:`initial_weights`.

    Args:
        model: The model; it is changed in place.
        seeds: The run's seeds.
    """
    with torch.no_grad():
        for name, tensor in initial_weights(model, seeds):
            model.get_parameter(name).copy_(tensor)


def initial_weights(model: nn.Module, seeds: Seeds) -> Iterator[tuple[str, torch.Tensor]]:
    """What every parameter starts from, in float64.

    Matrices: normal with standard deviation 1/sqrt(fan-in) (LeCun et al., 1998). Embeddings: normal,
    ``EMBEDDING_STD``. Vectors: ones for the scale of a norm, zeros for every bias.

    Args:
        model: The model, of which only names and shapes count: it may be on the device ``meta``.
        seeds: The run's seeds.
    """
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{name}" if module_name else name
            if parameter.ndim < 2:
                yield full_name, torch.full(parameter.shape, 1.0 if name == "weight" else 0.0, dtype=torch.float64)
            else:
                embedding = isinstance(module, nn.Embedding | nn.EmbeddingBag)
                std = EMBEDDING_STD if embedding else 1 / math.sqrt(parameter[0].numel())
                yield full_name, torch.from_numpy(standard_rows(seeds, full_name, parameter.shape) * std)


def standard_rows(seeds: Seeds, name: str, shape: Sequence[int]) -> np.ndarray:
    """A matrix before it is scaled, float64; fewer rows are the first ones of more.

    Args:
        seeds: The run's seeds.
        name: The parameter.
        shape: Its shape.
    """
    # By NumPy in float64: torch.randn gives other last bits on processors with other instructions.
    return seeds.generator("init", name).standard_normal(shape)
