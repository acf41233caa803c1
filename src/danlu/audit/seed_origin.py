"""The exact test of the seed: does a model still show the random start that our record committed to?

Training keeps some of what it started from. The start of a run of ours follows from its seed, to which the run
committed itself before its first step; so do the starts of seeds that were never used. If a suspect has nothing to do
with our run, its own seed is one like all others, and its start resembles the suspect no more than theirs do:

    p = (1 + #{s : phi(start(s), B) >= phi(start(own), B)}) / (n + 1)

is exact for any measure of resemblance, whatever was done to the suspect. Ours looks for each unit of a start the unit
of the suspect that resembles it most, so that no order matters, in the suspect's own basis and in the one in which its
token vectors come nearest to those of the start. A commitment that is older than the suspect also says who was first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from danlu.audit.resemblance import Resemblance
from danlu.audit.units import Parameters
from danlu.core.seeds import Seeds
from danlu.model.base import FamilyConfig, Model
from danlu.model.init import initial_weights

__all__ = ["SeedTest", "seed_test"]


@dataclass(frozen=True, kw_only=True)
class SeedTest:
    """What came of a test.

    Attributes:
        p: Share of seeds, the run's own among them, whose start resembles the suspect as much: exact.
        z: Standard deviations of the unused seeds by which the own one is above their mean.
        resemblance: Mean cosine of a start's units and those of the suspect most like them: the own seed's,
        unused: and the mean over seeds that were never used.
        n_seeds: Unused seeds.
    """

    p: float
    z: float
    resemblance: float
    unused: float
    n_seeds: int


class _Start:
    """The weights that a seed gives; see :class:`danlu.audit.units.Parameters`."""

    where = "the random start"

    def __init__(self, module: Model, seeds: Seeds, tokens: dict[str, int] | None) -> None:
        self.config: FamilyConfig = module.config
        self._module, self._seeds, self._tokens = module, seeds, tokens
        self._names = {name for name, _ in module.named_parameters()}
        self.n_blocks = len({name.split(".")[1] for name in self._names if name.startswith("blocks.")})

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> torch.Tensor:
        ((_, tensor),) = initial_weights(self._module, self._seeds, {name})
        return tensor.float()

    def tokens(self) -> dict[str, int] | None:
        return self._tokens


def seed_test(
    suspect: Parameters,
    module: Model,
    seeds: Seeds,
    tokens: dict[str, int] | None,
    drawn_tokens: bool,
    n_seeds: int = 999,
) -> SeedTest | str:
    """Test whether a suspect shows the start of a run.

    Args:
        suspect: The model that may be derived.
        module: Has the names and shapes of the run's parameters; its weights do not count.
        seeds: The run's seeds, as opened from its commitment.
        tokens: Token -> id of the run's tokenizer.
        drawn_tokens: Whether the run's token vectors were drawn, not made from its texts.
        n_seeds: Seeds that were never used, to compare with.

    Returns:
        What came of it, or why it cannot be made.
    """
    own = _Start(module, seeds, tokens)
    if not own.n_blocks or not suspect.n_blocks:
        return "there are no Transformer blocks in one of the two"
    measure = Resemblance(suspect, own, drawn_tokens)
    if not measure.bases:
        return "the two have sequences of different width and no tokens by which to compare them"
    value = measure(own)
    unused = np.array([measure(_Start(module, Seeds.new(f"unused {number}"), tokens)) for number in range(n_seeds)])
    return SeedTest(
        p=(1 + int((unused >= value).sum())) / (n_seeds + 1),
        z=float((value - unused.mean()) / unused.std()),
        resemblance=value,
        unused=float(unused.mean()),
        n_seeds=n_seeds,
    )
