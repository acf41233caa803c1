from __future__ import annotations

import json
from pathlib import Path

import pytest

from danlu.core.config import leaves, read_yaml
from danlu.core.errors import UsageError
from danlu.core.workspace import Workspace
from danlu.model.families import FAMILIES, MEMORY, NGRAM, PIXELS, TFIDF
from danlu.model.module import save_module
from danlu.recipe import json_schema, load, schema
from danlu.train.classification import ClassifyConfig
from danlu.train.config import TrainConfig
from danlu.train.images import ImageConfig
from danlu.train.language import LanguageConfig
from danlu.train.tasks import TRAINING
from schema_check import mistakes
from small import FAMILY, SIZES, make_training, recipe_of, recipe_text, write_csv

MINIMAL = """\
danlu: 1
name: reviews
task: text-classification
data: {source: reviews.csv}
model: {family: FAMILY}
"""
PAIRS = [(task, family) for family in FAMILIES.names() for task in sorted(TRAINING) if task in FAMILIES[family].tasks]
every_pair = pytest.mark.parametrize(("task", "family"), PAIRS)
RECIPES = Path(__file__).parents[2] / "recipes"


def read(folder, text, *overrides):
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return load(folder / "recipe.yaml", overrides)


def minimal(task, family):
    return MINIMAL.replace("FAMILY", family).replace("text-classification", task)


@every_pair
def test_five_lines_are_enough_and_the_size_derives_the_rest(tmp_path, task, family):
    for size, derived in FAMILIES[family].Config.sizes.items():
        loaded = read(tmp_path, minimal(task, family), f"model.size={size}")
        found, origin = dict(leaves(loaded.recipe.plain())), f"derived from model.family={family}, model.size={size}"
        for key, value in leaves(derived):
            assert found[key] == value
            assert loaded.resolved.origins[key] == origin
        said = {key for key, from_ in loaded.resolved.origins.items() if from_ == origin}
        assert said == {key for key, _ in leaves(derived)}, "what is said to be derived is"


@every_pair
def test_the_task_decides_how_to_train_and_what_to_beat(tmp_path, task, family):
    simple = {"text-classification": TFIDF, "image-classification": PIXELS, "language-modelling": NGRAM}
    loaded = read(tmp_path, minimal(task, family))
    assert loaded.recipe.evaluate.baselines == (simple.get(task, MEMORY),)
    assert loaded.resolved.origins["evaluate.baselines"] == f"derived from task={task}"
    wanted = {"text-classification": ClassifyConfig, "image-classification": ImageConfig}
    wanted = wanted | {"language-modelling": LanguageConfig}
    assert type(loaded.recipe.train) is wanted.get(task, TrainConfig)
    assert (loaded.recipe.pretrain is not None) == (task == "text-classification")
    assert (loaded.start, loaded.variants) == (None, {})
    given = read(tmp_path, minimal(task, family), f"evaluate.baselines=[{simple.get(task, MEMORY)}]")
    assert given.resolved.origins["evaluate.baselines"] == "command line"


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("language-modelling", "train.consistency=1"),
        ("translation", "train.augment={}"),
        ("image-classification", "train.consistency=1"),
        ("text-classification", "train.augment={}"),
        ("image-classification", "model.max_len=3"),
    ],
)
def test_what_is_said_of_another_task_is_an_unknown_key(tmp_path, task, key):
    with pytest.raises(UsageError, match=f"unknown key '{key.partition('=')[0]}"):
        read(tmp_path, minimal(task, FAMILY[task]), key)


@pytest.mark.parametrize("task", sorted(TRAINING))
@pytest.mark.parametrize("family", FAMILIES.names())
def test_a_family_that_cannot_do_the_task_is_refused_with_those_that_can(tmp_path, task, family):
    if task in FAMILIES[family].tasks:
        return
    with pytest.raises(UsageError, match=f"a {family} is not trained for {task}") as found:
        read(tmp_path, minimal(task, family))
    able = [name for name in FAMILIES.names() if task in FAMILIES[name].tasks]
    assert found.value.advice == f"set model.family to {' or '.join(able)}"
    assert found.value.where == str(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("task", "family"), [*((task, FAMILY[task]) for task in FAMILY), ("text-classification", "gru")]
)
def test_only_what_names_hidden_tokens_is_pretrained(tmp_path, task, family):
    text = recipe_text(family, task)
    if family == "bert":
        assert read(tmp_path, text, "pretrain.epochs=2").recipe.pretrain.epochs == 2
        return
    with pytest.raises(UsageError, match=f"a {family} is not trained to name hidden tokens") as found:
        read(tmp_path, text, "pretrain.epochs=2")
    assert (found.value.where, found.value.advice) == ("pretrain.epochs", "set pretrain.epochs=0")
    assert read(tmp_path, text, "pretrain.epochs=0").recipe.model.family == family


def test_the_command_line_stands_over_the_file_the_file_over_the_size_the_size_over_the_default(tmp_path):
    text = MINIMAL.replace("{family: FAMILY}", "{family: bert, d_model: 64, n_layers: 2}")
    loaded = read(tmp_path, text, "model.n_layers=3")
    model, origins = loaded.recipe.model, loaded.resolved.origins
    assert (model.d_model, model.n_layers) == (64, 3)
    assert origins["model.d_model"] == f"{tmp_path / 'recipe.yaml'}:5"
    assert origins["model.n_layers"] == "command line"
    assert origins["model.n_heads"].startswith("derived from")
    assert origins["train.clip_norm"] == "default"


def test_the_family_may_come_from_the_command_line(tmp_path):
    assert read(tmp_path, MINIMAL.replace("FAMILY", "bert"), "model.family=gru").recipe.model.family == "gru"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("{family: FAMILY}", "{}"), "model.family is missing"),
        (MINIMAL.replace("{family: FAMILY}", "bert"), "model.family is missing"),
        (MINIMAL.replace("FAMILY", "brt"), "model.family is unknown: 'brt'"),
        (MINIMAL.replace("FAMILY", "bert").replace("text-classification", "text-clasification"), "task is unknown"),
        (MINIMAL.replace("FAMILY", "bert").replace("task: text-classification\n", ""), "task is missing"),
        (MINIMAL.replace("FAMILY", "bert").replace("text-", "masked-"), "task is unknown: 'masked-classification'"),
        (MINIMAL.replace("FAMILY", "bert, size: tny"), "bert has no size 'tny'"),
        (MINIMAL.replace("FAMILY", "bert").replace("danlu: 1", "danlu: 9"), "danlu: Input should be 1"),
        (MINIMAL.replace("FAMILY", "bert").replace("reviews\n", "Re views\n"), "name: String should match"),
        (MINIMAL.replace("FAMILY", "bert").replace("data: {source: reviews.csv}\n", ""), "data is missing"),
        (MINIMAL.replace("FAMILY", "bert, d_hidden: 3"), "unknown key 'model.d_hidden'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as found:
        read(tmp_path, text)
    assert found.value.where
    assert found.value.exit_code == 2


def test_a_baseline_keeps_what_is_common_and_leaves_what_is_said_of_the_model(tmp_path):
    text = recipe_text("bert", pretrain={"epochs": 5}, train={"epochs": 9, "learning_rate": 0.5}, seed=7)
    baseline = read(tmp_path, text).with_family("gru")
    recipe = read(tmp_path, text).recipe
    assert baseline.model.family == "gru"
    assert baseline.model.d_model == FAMILIES["gru"].Config.sizes["tiny"]["model"]["d_model"]
    assert (baseline.data, baseline.tokenizer, baseline.seed) == (recipe.data, recipe.tokenizer, 7)
    assert baseline.pretrain.epochs == 0
    assert baseline.train.epochs == FAMILIES["gru"].Config.sizes["tiny"]["train"]["epochs"]
    assert baseline.train.learning_rate == FAMILIES["gru"].Config.sizes["tiny"]["train"]["learning_rate"]


@pytest.mark.parametrize(
    ("task", "words", "message", "where"),
    [
        ("text-classification", "evaluate.baselines=[5-gram]", "is called '5-gram'", "evaluate.baselines"),
        ("language-modelling", "evaluate.baselines=[tfidf-lr]", "is called 'tfidf-lr'", "evaluate.baselines"),
        ("translation", "evaluate.baselines=[gpt]", "is called 'gpt'", "evaluate.baselines"),
        ("image-classification", "ensemble=[mlp]", "only text classifiers are combined", "ensemble"),
        ("language-modelling", "ensemble=[gru]", "only text classifiers are combined", "ensemble"),
        ("text-classification", "ensemble=[cnn]", "is called 'cnn'", "ensemble"),
        ("language-modelling", "evaluate.baselines=[gpt]", "gpt would be compared with itself", "evaluate.baselines"),
    ],
)
def test_models_of_another_task_are_no_baselines_and_no_members(tmp_path, task, words, message, where):
    with pytest.raises(UsageError, match=message) as found:
        read(tmp_path, minimal(task, FAMILY[task]), words)
    assert found.value.where == where
    assert found.value.advice


# Variants


def test_a_variant_is_the_recipe_with_values_of_its_own(tmp_path):
    variants = {"wide": {"model": {"d_model": 64}}, "slow": {"train": {"epochs": 7, "learning_rate": 0.5}}}
    loaded = read(tmp_path, recipe_text("bert", variants=variants))
    recipe, wide, slow = loaded.recipe, *(loaded.variants[name].recipe for name in ("wide", "slow"))
    assert (recipe.model.d_model, wide.model.d_model, slow.model.d_model) == (16, 64, 16)
    assert (recipe.train.epochs, wide.train.epochs, slow.train.epochs) == (2, 2, 7)
    assert recipe.data == wide.data == slow.data
    assert loaded.variants["slow"].resolved.origins["train.epochs"] == "variants.slow"


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"other": {"data": {"source": "x.csv"}}}, "a variant says nothing of 'data'"),
        ({"other": {"seed": 2}}, "a variant says nothing of 'seed'"),
        ({"gru": {"train": {"epochs": 7}}}, "'gru' is already the name of a model"),
        ({"tfidf-lr": {"train": {"epochs": 7}}}, "'tfidf-lr' is already the name of a model"),
        ({"other": {"train": {"epoch": 7}}}, "unknown key 'train.epoch'"),
        ({"other": {"model": {"d_model": -7}}}, "model.d_model"),
    ],
)
def test_a_variant_that_makes_no_sense_is_refused_before_anything_is_trained(tmp_path, variants, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, recipe_text("bert", variants=variants))


# Starting from a checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    """A model that danlu saved."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_module(folder, make_training().module)
    return folder


def test_a_checkpoint_decides_the_family_and_every_size(tmp_path, checkpoint):
    text = MINIMAL.replace("{family: FAMILY}", "{from: checkpoint}")
    loaded = read(tmp_path, text)
    assert loaded.start.path == checkpoint
    assert loaded.recipe.model.from_ == "checkpoint"
    for key, value in SIZES["bert"].items():
        assert getattr(loaded.recipe.model, key) == value
        assert loaded.resolved.origins[f"model.{key}"] == "read from checkpoint"
    for key, value in FAMILIES["bert"].Config.fine_tuning.items():
        assert getattr(loaded.recipe.train, key) == value
        assert loaded.resolved.origins[f"train.{key}"] == "derived from model.from, model.family=bert"
    assert loaded.recipe.evaluate.baselines == (TFIDF,)


@pytest.mark.usefixtures("checkpoint")
def test_a_size_that_is_not_the_checkpoints_is_refused(tmp_path):
    text = MINIMAL.replace("{family: FAMILY}", "{from: checkpoint}")
    with pytest.raises(UsageError, match=r"model.d_model is 32, and the checkpoint's is 16") as found:
        read(tmp_path, text, "model.d_model=32")
    assert found.value.advice == "leave model.d_model out"
    assert read(tmp_path, text, "model.dropout=0.5").recipe.model.dropout == 0.5
    with pytest.raises(UsageError, match="this checkpoint, a bert, is not for translation"):
        read(tmp_path, text.replace("text-classification", "translation"))


@pytest.mark.parametrize("wanted", ["nowhere", "empty"])
def test_a_checkpoint_that_is_not_there(tmp_path, wanted):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"there is no checkpoint '{wanted}'") as found:
        read(tmp_path, MINIMAL.replace("{family: FAMILY}", f"{{from: {wanted}}}"))
    assert str(tmp_path / wanted) in found.value.where


def test_a_name_that_means_no_model(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL.replace("{family: FAMILY}", "{from: tiny@champion}"))
    with pytest.raises(UsageError, match="no model is named 'tiny'"):
        load(path, (), Workspace(tmp_path / "workspace"))


# As a whole


@pytest.mark.parametrize("task", sorted(TRAINING))
def test_a_recipe_written_out_in_full_reads_as_itself(tmp_path, task):
    recipe = recipe_of(tmp_path, FAMILY[task], task=task)
    assert read(tmp_path, json.dumps(recipe.plain())).recipe == recipe
    assert recipe.plain()["model"]["from"] == "scratch"


def test_the_schema_of_each_task_and_family_is_made_once():
    assert schema("text-classification", "bert") is schema("text-classification", "bert")
    assert schema("text-classification", "gru") is not schema("language-modelling", "gru")
    assert json_schema() == json_schema()
    for config in ("BertConfig", "GptConfig", "TransformerConfig", "CnnConfig"):
        assert json_schema()["$defs"][config]["required"] == []


@every_pair
def test_the_exported_schema_takes_the_recipes_of_every_task_and_no_others(tmp_path, task, family):
    exported, full = json_schema(), json.loads(recipe_text(family, task))
    assert mistakes(full, exported) == []
    assert mistakes(full | {"model": {"from": "sample:minilm"}}, exported) == []  # the checkpoint says what it is
    assert mistakes(read(tmp_path, minimal(task, family)).layers[0].values, exported) == []
    wrong = {
        "task": "cooking",
        "name": "Re views",
        "danlu": 2,
        "seed": "one",
        "colour": "red",
        "train": full["train"] | {"epochs": 0},
        "data": {},
        "model": {key: value for key, value in full["model"].items() if key != "family"},
    }
    for section, key in (("train", "epoch"), ("model", "d_modle"), ("data", "sorce"), ("evaluate", "baseline")):
        assert mistakes(full | {section: full[section] | {key: 1}}, exported), key
    for key, value in wrong.items():
        assert mistakes(full | {key: value}, exported), key
    for other in TRAINING:
        if other not in FAMILIES[family].tasks:
            assert mistakes(full | {"task": other}, exported), other


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_danlu_can_be_read(path):
    values = read_yaml(path).values
    assert values["name"]
    assert mistakes(values, json_schema()) == []
    if "from" not in values["model"]:  # a checkpoint has to be fetched first
        loaded = load(path)
        assert loaded.recipe.task == values["task"]


def test_relative_paths_start_at_the_recipe(tmp_path):
    write_csv(tmp_path / "texts.csv", [])
    assert read(tmp_path, MINIMAL.replace("FAMILY", "bert")).base == tmp_path
