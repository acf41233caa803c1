from __future__ import annotations

import pytest

from danlu.core.errors import UsageError
from danlu.model.families import FAMILIES
from danlu.recipe import json_schema, load, schema
from small import recipe_of, recipe_text, write_csv

MINIMAL = """\
danlu: 1
name: reviews
task: text-classification
data: {source: reviews.csv}
model: {family: FAMILY}
"""


def read(folder, text, *overrides):
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return load(folder / "recipe.yaml", overrides)


@pytest.mark.parametrize("family", FAMILIES.names())
def test_five_lines_are_enough_and_the_size_derives_the_rest(tmp_path, family):
    for size, derived in FAMILIES[family].Config.sizes.items():
        loaded = read(tmp_path, MINIMAL.replace("FAMILY", family), f"model.size={size}")
        for section, values in derived.items():
            for key, value in values.items():
                assert getattr(getattr(loaded.recipe, section), key) == value
                origin = loaded.resolved.origins[f"{section}.{key}"]
                assert origin == f"derived from model.family={family}, model.size={size}"


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
        (MINIMAL.replace("FAMILY", "brt"), "unknown model family 'brt'"),
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


def test_a_recipe_written_out_in_full_reads_as_itself(tmp_path):
    import json

    recipe = recipe_of(tmp_path)
    assert read(tmp_path, json.dumps(recipe.plain())).recipe == recipe
    assert recipe.plain()["model"]["from"] == "scratch"


def test_the_schema_of_each_family_is_made_once():
    assert schema("bert") is schema("bert")
    assert schema("bert") is not schema("gru")
    assert json_schema() == json_schema()
    assert "derived" not in str(json_schema()["$defs"]["BertConfig"]["required"])


def test_relative_paths_start_at_the_recipe(tmp_path):
    write_csv(tmp_path / "texts.csv", [])
    assert read(tmp_path, MINIMAL.replace("FAMILY", "bert")).base == tmp_path
