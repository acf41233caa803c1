from __future__ import annotations

import json
from pathlib import Path

import pytest

from danlu.core.config import read_overrides
from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.model.families import FAMILIES
from danlu.pipeline import Job
from danlu.recipe import json_schema, load
from danlu.train.tasks import TRAINING
from danlu.tune.config import Range
from danlu.tune.space import default_space, value_at, word
from danlu.tuning import Tuning
from schema_check import mistakes
from small import recipe_text


def written(folder: Path, family: str = "bert", task: str = "text-classification", **sections) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(recipe_text(family, task, **sections), encoding="utf-8")
    return path


def tuning(folder: Path, *words: str, **sections) -> Tuning:
    return Tuning(Job.load(written(folder, **sections), words, Workspace(folder / "workspace"), Silent()))


def test_a_recipe_has_a_section_for_the_search(tmp_path):
    space = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "tokenizer.vocab_size": [300, 340]}
    path = written(tmp_path, tune={"trials": 7, "space": space})
    loaded = load(path, ["tune.warmup_trials=2"])
    config, origins = loaded.recipe.tune, loaded.resolved.origins
    assert (config.trials, config.warmup_trials, config.sampler, config.pruner) == (7, 2, "tpe", "median")
    assert config.space["tokenizer.vocab_size"] == (300, 340)
    assert origins["tune.space.train.learning_rate.low"].startswith(f"{path}:")
    assert origins["tune.warmup_trials"] == "command line"
    assert origins["tune.pruner"] == "default"
    exported = json_schema()
    assert mistakes(json.loads(path.read_text()), exported) == []
    assert mistakes(loaded.recipe.plain(), exported) == []
    for wrong in ({"trails": 3}, {"trials": 0}, {"sampler": "grid"}, {"space": {"train.epochs": {"low": 1}}}):
        assert mistakes(json.loads(recipe_text("bert", tune=wrong)), exported), wrong


@pytest.mark.parametrize(
    ("key", "message", "advice"),
    [
        ("train.lerning_rate", "unknown key 'train.lerning_rate'", "did you mean 'train.learning_rate'?"),
        ("model.d_modle", "unknown key 'model.d_modle'", "did you mean 'model.d_model'?"),
        ("train.adapt", "unknown key 'train.adapt'", "train.adapt.mode"),
        ("learning_rate", "unknown key 'learning_rate'", "train.learning_rate"),
        ("data.clean.dedup", "a search does not change data", "model, tokenizer, pretrain, train"),
        ("seed", "a search does not change seed", "model, tokenizer, pretrain, train"),
        ("tune.trials", "a search does not change tune", "model, tokenizer, pretrain, train"),
        ("train.evaluations_per_epoch", "how a training is carried out or watched", "take it out"),
    ],
)
def test_a_key_that_cannot_be_searched_is_refused_when_the_recipe_is_read(tmp_path, key, message, advice):
    path = written(tmp_path, tune={"space": {key: [1, 2]}})
    with pytest.raises(UsageError, match=message) as found:
        load(path)
    assert found.value.where.startswith(f"{path}:")
    assert advice in found.value.advice


def test_what_changes_the_measure_is_refused(tmp_path):
    space = {"tokenizer.vocab_size": [300, 340]}
    with pytest.raises(UsageError, match="cannot be compared: the validation loss is by the token"):
        load(written(tmp_path, "transformer", "translation", tune={"space": space}))
    for family, task in (("gpt", "language-modelling"), ("bert", "text-classification")):
        assert load(written(tmp_path, family, task, tune={"space": space})).recipe.tune.space
    with pytest.raises(UsageError, match=r"train.epochs is searched, and tune.epochs fixes it"):
        load(written(tmp_path, tune={"epochs": 1, "space": {"train.epochs": [1, 2]}}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.learning_rate": {"low": -1, "high": 1}}, "learning_rate cannot be searched so: .* greater than 0"),
        ({"model.dropout": [0.1, 2]}, "dropout cannot be searched so: .* less than 1"),
        ({"train.optimizer": ["adamw", "muno"]}, "optimizer cannot be searched so"),
        ({"train.epochs": {"low": 0.5, "high": 2.5}}, "epochs cannot be searched so: .* integer"),
        ({"train.epochs": {"low": 1, "high": 2, "step": 0.5}}, "train.epochs takes whole numbers"),
        ({"tokenizer.kind": {"low": 1, "high": 2}}, "kind cannot be searched so"),
        ({"train.learning_rate": ["1e-3", 0.001]}, "train.learning_rate has one choice twice"),
    ],
)
def test_a_value_that_the_recipe_refuses_is_refused_before_anything_is_made(tmp_path, space, message):
    with pytest.raises(UsageError, match=message) as found:
        _ = tuning(tmp_path, tune={"space": space}).space
    assert found.value.where.startswith(str(tmp_path / "recipe.yaml"))
    assert not (tmp_path / "workspace").exists()


def test_values_get_the_type_that_the_recipe_gives_them(tmp_path):
    space = {
        "train.weight_decay": {"low": 0, "high": 1},
        "train.epochs": {"low": 1.0, "high": 3.0},
        "train.learning_rate": ["1e-3", 2],
        "train.betas": [[0.9, 0.98], [0.9, 0.999]],
        "train.max_steps": [None, 3],
    }
    found = tuning(tmp_path, tune={"space": space}).space
    assert found["train.weight_decay"].plain() == {"low": 0.0, "high": 1.0, "log": False, "step": None}
    assert not found["train.weight_decay"].whole, "a share is no whole number, however its bounds are written"
    assert found["train.epochs"].whole
    assert found["train.learning_rate"] == (0.001, 2.0)
    assert found["train.betas"] == ([0.9, 0.98], [0.9, 0.999])
    assert found["train.max_steps"] == (None, 3)


def test_the_first_trial_has_the_recipes_own_values_where_the_space_holds_them(tmp_path):
    space = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "train.batch_tokens": [256, 512]}
    assert tuning(tmp_path, tune={"space": space}).first == {"train.learning_rate": 1e-3, "train.batch_tokens": 512}
    assert tuning(tmp_path, "train.batch_tokens=300", tune={"space": space}).first is None
    assert tuning(tmp_path, "train.learning_rate=1", tune={"space": space}).first is None


def test_the_key_is_that_of_what_decides_the_trials(tmp_path):
    space = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "train.batch_tokens": [256, 512]}

    def what(*words: str) -> dict:
        return tuning(tmp_path, *words, tune={"space": space}).what

    assert what() == what("tune.trials=3", "name=other", "evaluate.bootstrap=700")
    outside = what("train.batch_tokens=300")
    assert outside == what("train.batch_tokens=301"), "the recipe's own values of what is searched, where not tried"
    for words in (
        ["train.clip_norm=3"],
        ["tune.epochs=1"],
        ["tune.pruner=none"],
        ["seed=2"],
        ["train.batch_tokens=256"],
    ):
        assert what(*words) != what(), words
    assert "learning_rate" not in what()["recipe"]["train"]
    assert what()["recipe"]["train"]["clip_norm"] == 1.0


@pytest.mark.parametrize(
    ("task", "family"),
    [(task, family) for family in FAMILIES.names() for task in TRAINING if task in FAMILIES[family].tasks],
)
def test_the_default_space_lies_around_the_recipe(tmp_path, task, family):
    recipe = load(written(tmp_path, family, task), ["train.learning_rate=1e-3", "train.batch_tokens=7"]).recipe
    space = default_space(recipe.model, recipe.train)
    assert space["train.learning_rate"] == Range(low=2e-4, high=5e-3, log=True)
    assert space["train.batch_tokens"] == (3, 7, 14)
    assert ("model.dropout" in space) == hasattr(recipe.model, "dropout")
    assert recipe.model.dropout in space["model.dropout"]
    assert default_space(recipe.model, recipe.train.model_copy(update={"batch_tokens": 1}))["train.batch_tokens"] == (
        1,
        2,
    )


@pytest.mark.parametrize(
    "value",
    [1, 0.1, 1e-5, 2.5e-07, True, None, "muon", "a b", "no", "null", "1.5", "#", "a: b", "好", [0.9, 0.98], ["a"], ""],
)
def test_a_word_is_read_back_as_its_value(value):
    read = value_at(read_overrides([word("a.b", value)]).values, "a.b")
    assert float(read) == value if isinstance(value, float) else read == value


def test_a_plain_word_is_typed_without_quotes():
    assert word("train.optimizer", "muon") == "train.optimizer=muon"
    assert word("train.betas", [0.9, 0.98]) == "train.betas=[0.9, 0.98]"
    assert value_at({"a": {"b": 1}}, "a.b.c") is None
