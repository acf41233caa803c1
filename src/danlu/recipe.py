"""The recipe: one YAML file that says what to do from raw data to report, strictly read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from danlu.core.config import Config, Layer, Resolved, leaves, read_overrides, read_yaml, resolve
from danlu.core.errors import UsageError, nearest
from danlu.core.workspace import Workspace
from danlu.data.stage import DataConfig
from danlu.data.tokenizer import TokenizerConfig
from danlu.evaluate.config import EvaluateConfig
from danlu.model.base import FamilyConfig, Task
from danlu.model.families import FAMILIES
from danlu.model.pretrained.config import read_config
from danlu.start import SCRATCH, find_start
from danlu.train.baseline import BASELINES
from danlu.train.config import TrainConfig
from danlu.train.prepare import Start
from danlu.train.pretrain import PretrainConfig
from danlu.train.tasks import TRAINING
from danlu.tune.config import TuneConfig
from danlu.tune.space import check_keys

__all__ = ["Loaded", "Recipe", "json_schema", "load", "over", "schema"]


_OWN_SECTIONS = ("model", "pretrain", "train", "variants", "tune")
"""What is said of the recipe's own model, and not of others that are trained beside it."""
_OF_VARIANTS = ("model", "tokenizer", "pretrain", "train")
"""What a variant may say otherwise: it is compared on the same data."""


class Recipe(Config):
    """A recipe, every value filled in."""

    danlu: Literal[1]
    """Version of the recipe's layout."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """What its models are called: lower-case letters, digits, - and _."""
    task: Task
    """What the model is to do."""
    seed: int | None = None
    """A number makes the run repeatable; null draws 256 random bits."""
    data: DataConfig
    """Where the records come from and how they are cleaned and split."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes tokens."""
    model: FamilyConfig
    """The model to train."""
    pretrain: PretrainConfig | None = None
    """How it first learns from the training texts without their labels; for text classification."""
    train: TrainConfig
    """How it is trained."""
    variants: Mapping[str, Mapping[str, Any]] = {}
    """Other ways to make the model, by name: what each says otherwise of model, tokenizer, pretrain and train. They are
    trained, evaluated and compared beside it."""
    ensemble: tuple[str, ...] = ()
    """Other models whose answers are combined with the model's; their weights are fitted on the validation split."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How it is judged."""
    tune: TuneConfig = TuneConfig()
    """How better values for the model are searched for."""


@dataclass(frozen=True)
class Loaded:
    """A recipe that has been read.

    Attributes:
        resolved: The recipe and the origin of every value.
        path: The YAML file.
        layers: What was said, in order.
        start: The checkpoint that the recipe's model starts from; None starts from drawn weights.
        variants: The recipe with each variant's own values.
    """

    resolved: Resolved[Recipe]
    path: Path
    layers: tuple[Layer, ...]
    start: Start | None
    variants: Mapping[str, Loaded]

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.resolved.config

    @property
    def base(self) -> Path:
        """The folder that relative paths in it start from."""
        return self.path.absolute().parent

    def with_family(self, family: str) -> Recipe:
        """The same recipe for another family at the same size: what a baseline is trained with.

        What the recipe's own ``model``, ``pretrain`` and ``train`` sections say is of its own model and is left out.
        """
        task, size = self.recipe.task, self.recipe.model.size
        model = Layer({"model": {"family": family, "size": size}}, {})
        shared = [{k: v for k, v in layer.values.items() if k not in _OWN_SECTIONS} for layer in self.layers]
        layers = [_derived(task, family, size), *(Layer(values, {}) for values in shared), model]
        return resolve(schema(task, family), layers).config


@cache
def schema(task: Task, family: str) -> type[Recipe]:
    """The recipe's schema for one task and one model family.

    Raises:
        UsageError: No such family.
    """
    fields: dict[str, Any] = {
        "task": (Literal[task], Field(description="What the model is to do.")),
        "model": (FAMILIES[family].Config, Field(description="The model to train.")),
        "train": (TRAINING[task].config, Field(TRAINING[task].config(), description="How it is trained.")),
    }
    if task == "text-classification":
        fields["pretrain"] = (PretrainConfig, PretrainConfig())
    made: type[Recipe] = create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **fields)
    return made


def load(path: Path, overrides: Sequence[str] = (), workspace: Workspace | None = None) -> Loaded:
    """Read a recipe.

    Args:
        path: The YAML file.
        overrides: ``key=value`` words from the command line, over the file.
        workspace: Where ``model.from`` finds samples and models; None is the default one.

    Raises:
        UsageError: The file cannot be read, a key is unknown or missing, or a value is wrong; with its line.
    """
    loaded = _resolved((read_yaml(path), read_overrides(overrides)), path, workspace or Workspace())
    variants = {
        name: _resolved((*loaded.layers, _variant(name, values)), path, workspace or Workspace())
        for name, values in loaded.recipe.variants.items()
    }
    loaded = replace(loaded, variants=variants)
    _check_labels(loaded.recipe)
    check_keys(loaded.recipe.tune.space, loaded.recipe.plain(), loaded.resolved.origins)
    return loaded


def over(loaded: Loaded, words: Sequence[str], workspace: Workspace) -> Loaded:
    """A recipe as if more ``key=value`` words had stood on its command line; errors as of :func:`load`."""
    return _resolved((*loaded.layers, read_overrides(words)), loaded.path, workspace)


def _variant(name: str, values: Mapping[str, Any]) -> Layer:
    """What a variant says."""
    where = f"variants.{name}"
    if unknown := [key for key in values if key not in _OF_VARIANTS]:
        raise UsageError(
            f"a variant says nothing of {unknown[0]!r}", where=where, advice=f"it may say {', '.join(_OF_VARIANTS)}"
        )
    return Layer(dict(values), {f"{section}.{key}": where for section in values for key in values[section]})


def _resolved(layers: tuple[Layer, ...], path: Path, workspace: Workspace) -> Loaded:
    """A recipe from what was said."""
    task, wanted = _said(layers, "task"), _said(layers, "model", "from") or SCRATCH
    base = path.absolute().parent
    start = find_start(str(wanted), base, workspace)
    read = Layer({}, {}) if start is None or task not in TRAINING else _read(start, task, wanted)
    family, size = _said([read, *layers], "model", "family"), _said(layers, "model", "size") or "tiny"
    for key, value, known in (("task", task, list(TRAINING)), ("model.family", family, FAMILIES.names())):
        if value is None:
            raise UsageError(f"{key} is missing", where=str(path), advice=f"one of {', '.join(known)}")
        if value not in known:
            raise UsageError(f"{key} is unknown: {value!r}", where=str(path), advice=nearest(str(value), known))
    if task not in FAMILIES[family].tasks:
        able = [name for name in FAMILIES.names() if task in FAMILIES[name].tasks]
        what = f"a {family} is not trained for {task}"
        raise UsageError(what, where=str(path), advice=f"set model.family to {' or '.join(able)}")
    derived = _derived(task, family, size) if start is None else _fine_tuned(task, family, read)
    resolved = resolve(schema(task, family), [derived, *layers])
    pretrain = resolved.config.pretrain
    if pretrain is not None and pretrain.epochs and "masked-language-modelling" not in FAMILIES[family].tasks:
        what = f"a {family} is not trained to name hidden tokens"
        raise UsageError(what, where="pretrain.epochs", advice="set pretrain.epochs=0")
    if start is not None:
        _check_unchanged(read.values["model"], resolved.config.model.plain(), path)
    return Loaded(resolved, path, layers, start, {})


def _read(start: Start, task: Task, wanted: str) -> Layer:
    """What a checkpoint's own config says of the model."""
    values = read_config(start.path, task).plain()
    values = {key: value for key, value in values.items() if key not in ("size", "from")}
    return Layer({"model": values}, {f"model.{key}": f"read from {wanted}" for key in values})


def _fine_tuned(task: Task, family: str, read: Layer) -> Layer:
    """What is derived for a model that starts from a checkpoint."""
    derived = _derived(task, family, "tiny")
    training = FAMILIES[family].Config.fine_tuning
    origins = {f"train.{key}": f"derived from model.from, model.family={family}" for key in training}
    values = {**read.values, "train": training, "evaluate": derived.values["evaluate"]}
    kept = {key: origin for key, origin in derived.origins.items() if key.startswith("evaluate.")}
    return Layer(values, {**read.origins, **origins, **kept})


def _check_unchanged(read: dict[str, Any], resolved: dict[str, Any], path: Path) -> None:
    """Refuse a size that is not the checkpoint's: its weights would not fit."""
    for key, value in read.items():
        if resolved[key] != value and "dropout" not in key and key not in ("max_len", "pooling"):
            what = f"model.{key} is {resolved[key]!r}, and the checkpoint's is {value!r}"
            raise UsageError(what, where=str(path), advice=f"leave model.{key} out")


def _said(layers: Sequence[Layer], *keys: str) -> Any:
    """What the last layer that says anything about a key says."""
    said = None
    for layer in layers:
        value: Any = layer.values
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        said = said if value is None else value
    return said


def _check_labels(recipe: Recipe) -> None:
    """Refuse, before anything is trained, a baseline or member that does not exist, and a model as its own baseline."""
    simple = [label for label, baseline in BASELINES.items() if baseline.task == recipe.task]
    known = [*simple, *(family for family in FAMILIES.names() if recipe.task in FAMILIES[family].tasks)]
    if taken := [name for name in recipe.variants if name in known]:
        what = f"{taken[0]!r} is already the name of a model"
        raise UsageError(what, where="variants", advice="choose another name")
    for key, labels in (("evaluate.baselines", recipe.evaluate.baselines), ("ensemble", recipe.ensemble)):
        for label in labels:
            if label not in known:
                raise UsageError(
                    f"no model for {recipe.task} is called {label!r}", where=key, advice=nearest(label, known)
                )
    if recipe.ensemble and recipe.task != "text-classification":
        raise UsageError("only text classifiers are combined", where="ensemble", advice="leave ensemble out")
    if recipe.evaluate.few_shot.shots and recipe.task != "text-classification":
        what = "few-shot curves are for text classification"
        raise UsageError(what, where="evaluate.few_shot", advice="leave it out")
    if recipe.evaluate.baselines[0] == recipe.model.family and not recipe.ensemble:
        raise UsageError(
            f"{recipe.model.family} would be compared with itself",
            where="evaluate.baselines",
            advice=f"put another family first, e.g. baselines: [{simple[0]}]",
        )


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors: one branch a task and model family."""
    pairs = [(task, family) for family in FAMILIES.names() for task in TRAINING if task in FAMILIES[family].tasks]
    branches = [schema(task, family).model_json_schema() for task, family in pairs]
    definitions: dict[str, Any] = {}
    for branch in branches:
        branch["properties"]["evaluate"] = {"$ref": "#/$defs/EvaluateConfig"}  # its default depends on the task
        definitions |= branch.pop("$defs", {})
    for family in FAMILIES.names():
        config = FAMILIES[family].Config
        if (model := definitions.get(config.__name__)) is not None:
            derived = set.intersection(*(set(size["model"]) for size in config.sizes.values()))
            model["required"] = [key for key in model["required"] if key not in {*derived, "family"}]
            model["anyOf"] = [{"required": ["family"]}, {"required": ["from"]}]  # a checkpoint says what it is
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": branches, "$defs": definitions}


def _derived(task: Task, family: str, size: str) -> Layer:
    """What the task and the size dial derive for a family."""
    sizes = FAMILIES[family].Config.sizes
    if size not in sizes:
        raise UsageError(f"{family} has no size {size!r}", where="model.size", advice=nearest(size, sizes))
    baseline = next(label for label, simple in BASELINES.items() if simple.task == task)
    values: dict[str, Any] = {**sizes[size], "evaluate": {"baselines": [baseline]}}
    origins = {key: f"derived from model.family={family}, model.size={size}" for key, _ in leaves(sizes[size])}
    return Layer(values, {**origins, "evaluate.baselines": f"derived from task={task}"})
