"""The recipe: one YAML file that says what to do from raw data to report, strictly read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from danlu.core.config import Config, Layer, Resolved, read_overrides, read_yaml, resolve
from danlu.core.errors import UsageError, nearest
from danlu.data.stage import DataConfig
from danlu.data.tokenizer import TokenizerConfig
from danlu.evaluate.config import EvaluateConfig
from danlu.model.base import FamilyConfig
from danlu.model.families import FAMILIES, TFIDF
from danlu.train.prepare import ClassifyConfig, PretrainConfig

__all__ = ["Loaded", "Recipe", "json_schema", "load", "schema"]


_OWN_SECTIONS = ("model", "pretrain", "train")
"""What is said of the recipe's own model, and not of others that are trained beside it."""


class Recipe(Config):
    """A recipe, every value filled in."""

    danlu: Literal[1]
    """Version of the recipe's layout."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """What its models are called: lower-case letters, digits, - and _."""
    task: Literal["text-classification"]
    """What the model is to do."""
    seed: int | None = None
    """A number makes the run repeatable; null draws 256 random bits."""
    data: DataConfig
    """Where the records come from and how they are cleaned and split."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes tokens."""
    model: FamilyConfig
    """The model to train."""
    pretrain: PretrainConfig = PretrainConfig()
    """How it first learns from the training texts without their labels."""
    train: ClassifyConfig = ClassifyConfig()
    """How it is trained."""
    ensemble: tuple[str, ...] = ()
    """Other models whose answers are combined with the model's; their weights are fitted on the validation split."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How it is judged."""


@dataclass(frozen=True)
class Loaded:
    """A recipe that has been read.

    Attributes:
        resolved: The recipe and the origin of every value.
        base: The folder that relative paths in it start from.
    """

    resolved: Resolved[Recipe]
    base: Path
    layers: tuple[Layer, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.resolved.config

    def with_family(self, family: str) -> Recipe:
        """The same recipe for another family at the same size: what a baseline is trained with.

        What the recipe's own ``model``, ``pretrain`` and ``train`` sections say is of its own model and is left out.
        """
        size = self.recipe.model.size
        derived = Layer(_derived(family, size), {})
        model = Layer({"model": {"family": family, "size": size}}, {})
        shared = [{k: v for k, v in layer.values.items() if k not in _OWN_SECTIONS} for layer in self.layers]
        return resolve(schema(family), [derived, *(Layer(values, {}) for values in shared), model]).config


@cache
def schema(family: str) -> type[Recipe]:
    """The recipe's schema for one model family.

    Raises:
        UsageError: No such family.
    """
    config = FAMILIES[family].Config
    made: type[Recipe] = create_model(
        "Recipe", __base__=Recipe, __doc__=Recipe.__doc__, model=(config, Field(description="The model to train."))
    )
    return made


def load(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a recipe.

    Args:
        path: The YAML file.
        overrides: ``key=value`` words from the command line, over the file.

    Raises:
        UsageError: The file cannot be read, a key is unknown or missing, or a value is wrong; with its line.
    """
    layers = (read_yaml(path), read_overrides(overrides))
    model: dict[str, Any] = {}
    for layer in layers:
        section = layer.values.get("model", {})
        if isinstance(section, dict):
            model |= section
    family, size = model.get("family"), model.get("size", "tiny")
    if family is None:
        raise UsageError("model.family is missing", where=str(path), advice=f"one of {', '.join(FAMILIES.names())}")
    if family not in FAMILIES.names():
        advice = nearest(str(family), FAMILIES.names())
        raise UsageError(f"unknown model family {family!r}", where=str(path), advice=advice)
    values = _derived(str(family), str(size))
    origins = {
        f"{section}.{key}": f"derived from model.family={family}, model.size={size}"
        for section, derived in values.items()
        for key in derived
    }
    resolved = resolve(schema(str(family)), [Layer(values, origins), *layers])
    _check_labels(resolved.config)
    return Loaded(resolved, path.absolute().parent, layers)


def _check_labels(recipe: Recipe) -> None:
    """Refuse, before anything is trained, a baseline or member that does not exist, and a model as its own baseline."""
    known = [TFIDF, *FAMILIES.names()]
    for key, labels in (("evaluate.baselines", recipe.evaluate.baselines), ("ensemble", recipe.ensemble)):
        for label in labels:
            if label not in known:
                raise UsageError(f"unknown model family {label!r}", where=key, advice=nearest(label, known))
    if recipe.evaluate.baselines[0] == recipe.model.family and not recipe.ensemble:
        raise UsageError(
            f"{recipe.model.family} would be compared with itself",
            where="evaluate.baselines",
            advice="put another family first, e.g. baselines: [tfidf-lr]",
        )


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors: one branch a model family."""
    branches = [schema(family).model_json_schema() for family in FAMILIES.names()]
    definitions: dict[str, Any] = {}
    for branch in branches:
        definitions |= branch.pop("$defs", {})
    for family in FAMILIES.names():
        config = FAMILIES[family].Config
        derived = set.intersection(*(set(size["model"]) for size in config.sizes.values()))
        model = definitions[config.__name__]
        model["required"] = [key for key in model["required"] if key not in derived]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "oneOf": branches, "$defs": definitions}


def _derived(family: str, size: str) -> dict[str, Any]:
    """What the size dial derives for a family."""
    sizes = FAMILIES[family].Config.sizes
    if size not in sizes:
        raise UsageError(f"{family} has no size {size!r}", where="model.size", advice=nearest(size, sizes))
    derived: dict[str, Any] = sizes[size]
    return derived
