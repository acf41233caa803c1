"""What a recipe says of a search: which values, how many trials, when a trial is stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from danlu.core.config import Config

__all__ = ["Choices", "Range", "Space", "TuneConfig"]


class Range(Config):
    """Values between two bounds, both of them included."""

    low: int | float
    """The smallest value."""
    high: int | float
    """The largest value."""
    log: bool = False
    """Whether from 1 to 2 is as far as from 2 to 4: for what may be of any magnitude, such as a learning rate."""
    step: int | float | None = None
    """Distance from a value to the next; null: any value in between, of a key that takes whole numbers any of them."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} is not below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} has no logarithm: with log, bounds are above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step={self.step} is not above 0")
        if self.step is not None and not _steps_onto(self.high, self.low, self.step):
            raise ValueError(f"high={self.high} is no whole number of steps of {self.step} above low={self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.whole and value != int(value)):
            return False
        inside = self.low <= value <= self.high
        return inside and (self.step is None or _steps_onto(value, self.low, self.step))


Choices = tuple[Any, ...]
"""Values one by one."""

Space = Mapping[str, Range | Choices]
"""What is searched: dotted key of the recipe -> its values."""


def _dimension(given: Any) -> Range | Choices:
    """The values of one key, from a list of choices or a mapping of bounds."""
    if isinstance(given, Range):
        return given
    if isinstance(given, Mapping):
        return Range.model_validate(given)
    if not isinstance(given, list | tuple):
        raise ValueError("give a list of choices, or {low: ..., high: ...}")
    if len(given) < 2 or any(given.index(value) < place for place, value in enumerate(given)):
        raise ValueError("give two choices or more, each once")
    return tuple(given)


class TuneConfig(Config):
    """How better values for the recipe's own model are searched for."""

    trials: int = Field(20, ge=1)
    """How many trainings are tried. A search that has ended goes on from where it was when this is raised."""
    epochs: int | None = Field(None, ge=1)
    """Passes of a trial over the training records; null: as many as ``train.epochs``."""
    max_steps: int | None = Field(None, ge=1)
    """The most steps of a trial, the learning rate being at its end by then; null: ``train.max_steps``."""
    space: Mapping[str, Annotated[Range | Choices, BeforeValidator(_dimension)]] = {}
    """Dotted key of model, tokenizer, pretrain or train -> a list of choices, or ``{low, high, log, step}``. Empty: a
    fifth to five times the recipe's learning rate, half to double its batch, and dropout where the family has it."""
    sampler: Literal["tpe", "random"] = "tpe"
    """``tpe`` learns from the trials before (Bergstra et al., 2011) after ten random ones; ``random`` does not."""
    pruner: Literal["median", "none"] = "median"
    """``median`` stops a trial whose best score so far is below the median of what complete trials had at the same
    evaluation; ``none`` lets every trial come to its end."""
    warmup_trials: int = Field(5, ge=1)
    """Trials that are complete before any is stopped early."""

    @field_validator("space", mode="before")
    @classmethod
    def _dotted(cls, given: Any) -> Any:
        """Sections of sections as dotted keys: how the command line gives them, over those of the file."""
        if not isinstance(given, Mapping):
            return given
        found: dict[str, Any] = {}
        for key, value in _flat(given, ""):
            under = found.get(key)
            found[key] = {**under, **value} if isinstance(under, Mapping) and isinstance(value, Mapping) else value
        return found


def _flat(given: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Every key of the space with what is said of it."""
    for name, value in given.items():
        if isinstance(value, Mapping) and value and not value.keys() & Range.model_fields.keys():
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _steps_onto(value: float, low: float, step: float) -> bool:
    """Whether steps from the lowest value on come to a value exactly, as it is written."""
    return (Decimal(str(value)) - Decimal(str(low))) % Decimal(str(step)) == 0
