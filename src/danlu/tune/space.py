"""The space of a search against the recipe that it belongs to: which keys it may name, and what their values are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from danlu.core.config import leaves
from danlu.core.errors import UsageError, nearest
from danlu.model.base import FamilyConfig
from danlu.train.config import RunConfig, TrainConfig
from danlu.tune.config import Choices, Range, Space

__all__ = ["SECTIONS", "check_keys", "default_space", "value_at", "with_types", "word"]

SECTIONS = ("model", "tokenizer", "pretrain", "train")
"""What a search may change: trials are compared on the same data."""

_NOT_LEARNED = (*(f"train.{name}" for name in RunConfig.model_fields), "train.evaluations_per_epoch")
"""What changes how a training is carried out or watched, and not what it learns."""
_MEASURES = ("model.from", "model.max_len", "tokenizer.")
"""What changes the tokens that a text is cut into, and with them a loss by the token."""
_TIMES = 5
"""How far the learning rate of the default space goes to either side."""
_DROPOUT = (0.0, 0.1, 0.2, 0.3)


def check_keys(space: Space, recipe: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Refuse a space that names what cannot be searched.

    Args:
        space: The recipe's.
        recipe: The recipe as plain values.
        origins: dotted key of the recipe -> where it was given.

    Raises:
        UsageError: A key is unknown (the nearest is suggested), or trials that differ in it could not be compared.
    """
    known = [key for key, _ in leaves(recipe) if key.startswith(tuple(f"{section}." for section in SECTIONS))]
    for key in space:
        where = _origin(key, origins)
        section = key.partition(".")[0]
        if section in recipe and section not in SECTIONS:
            what = f"a search does not change {section}"
            raise UsageError(what, where=where, advice=f"it changes values of {', '.join(SECTIONS)}")
        if key not in known:
            raise UsageError(f"the space names an unknown key {key!r}", where=where, advice=nearest(key, known))
        if key in _NOT_LEARNED:
            what = f"{key} changes how a training is carried out or watched, not what is learned"
            raise UsageError(what, where=where, advice="take it out of the space")
        if recipe["task"] == "translation" and key.startswith(_MEASURES):
            what = f"trials that differ in {key} cannot be compared: the validation loss is by the token"
            raise UsageError(what, where=where, advice="take it out of the space; compare variants with danlu run")
        for length in ("epochs", "max_steps"):
            if key == f"train.{length}" and recipe["tune"][length] is not None:
                what = f"{key} is searched, and tune.{length} fixes it"
                raise UsageError(what, where=where, advice=f"leave one of the two out (tune.{length}=null)")


def default_space(model: FamilyConfig, train: TrainConfig) -> dict[str, Range | Choices]:
    """What is searched where the recipe says nothing: what matters most in most trainings."""
    rate, batch = train.learning_rate, train.batch_tokens
    low, high = (float(f"{each:.6g}") for each in (rate / _TIMES, rate * _TIMES))
    space: dict[str, Range | Choices] = {
        "train.learning_rate": Range(low=low, high=high, log=True),
        "train.batch_tokens": tuple(sorted({max(1, batch // 2), batch, 2 * batch})),
    }
    dropout = getattr(model, "dropout", None)
    return space if dropout is None else space | {"model.dropout": tuple(sorted({*_DROPOUT, dropout}))}


def with_types(
    space: Space, read: Callable[[str, Any], Mapping[str, Any]], origins: Mapping[str, str]
) -> dict[str, Range | Choices]:
    """The space in order of key, with every value as the recipe reads it: 1e-3 is a number, and 0 of a share is 0.0.

    Args:
        space: What is searched.
        read: The plain values of the recipe with a value at a key.
        origins: dotted key of the recipe -> where it was given.

    Raises:
        UsageError: The recipe refuses a value.
    """
    typed: dict[str, Range | Choices] = {}
    for key, dimension in sorted(space.items()):
        where = _origin(key, origins)
        given = (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension
        try:
            values = [value_at(read(key, value), key) for value in given]
        except UsageError as error:
            raise UsageError(f"{key} cannot be searched so: {error.what}", where=where, advice=error.advice) from error
        if not isinstance(dimension, Range):
            if any(values.index(value) < place for place, value in enumerate(values)):
                raise UsageError(f"{key} has one choice twice", where=where, advice="give each once")
            typed[key] = tuple(values)
            continue
        changed = dimension.model_copy(update={"low": values[0], "high": values[1]})
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise UsageError(f"{key} takes no numbers", where=where, advice="give a list of choices")
        if isinstance(values[0], int) and not changed.whole:
            raise UsageError(f"{key} takes whole numbers", where=where, advice=f"give tune.space.{key} a whole step")
        typed[key] = changed
    return typed


def value_at(recipe: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where the recipe has no such section."""
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def word(key: str, value: Any) -> str:
    """``key=value`` as it is typed after a recipe; it is read back as the same value."""
    plain = isinstance(value, str) and yaml.safe_load(value) == value
    return f"{key}={value if plain else json.dumps(value, ensure_ascii=False)}"


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Where the space names a key; the recipe's default space names it nowhere."""
    place = f"tune.space.{key}"
    return next((origin for other, origin in origins.items() if other == place or other.startswith(f"{place}.")), place)
