"""From a csv file to a report and an answer, through the command line, with no network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danlu.evaluate.tasks import TASKS
from danlu.model.families import FAMILIES
from danlu.train.baseline import BASELINES
from danlu.train.tasks import TRAINING
from small import FAMILY, made_up, recipe_text, write_csv, write_source

VERBS_TO_ASK = ("data", "plan", "train", "run")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_csv(tmp_path / "texts.csv", made_up(400, n_chars=(4, 12)))
    path = tmp_path / "tiny.yaml"
    path.write_text(
        recipe_text(
            "bert",
            pretrain={"epochs": 1},
            train={"epochs": 3, "batch_tokens": 256, "learning_rate": 5e-3},
            ensemble=["tfidf-lr"],
            evaluate={"baselines": ["tfidf-lr", "gru"], "bootstrap": 100},
        )
    )
    return path


def test_the_whole_life_cycle(danlu, recipe):
    first = danlu("run", recipe, "--json")
    assert first.code in (0, 3), first.err
    found = first.json
    report = Path(found["report"])
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (report.parent / "card.md").stat().st_size > 500
    assert (first.code == 0) == found["gate"]["passed"]
    assert set(found["metrics"]) == {"ensemble", "bert", "tfidf-lr", "gru"}
    alias = "champion" if found["gate"]["passed"] else "challenger"

    again = danlu("run", recipe)
    assert again.code == first.code
    made = ["dataset", "pretrained", "model", "evaluation", "comparison"]
    assert again.err.count("is there already") >= 1 + 1 + 4 + 4 + 1
    for kind, n in zip(made, (1, 1, 4, 4, 1), strict=True):
        assert len(list((danlu.workspace / "artifacts" / kind).glob("tiny*"))) == n, kind
    assert "the gate refused" in again.out.lower() or "champion" in again.out
    assert not list(danlu.workspace.rglob("checkpoints"))

    log = danlu("log", "--json").json
    assert f"tiny@{alias}" in [name for model in log["models"] for name in model["aliases"]]
    assert [entry["alias"] for entry in log["ledger"] if entry["name"] == "tiny"].count("latest") == 1
    assert danlu("log").code == 0
    assert danlu("log", "--json").json["runs"] == []
    curves = danlu("log", "tiny-bert", "tiny-gru", "--json").json
    assert Path(curves["page"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [run["step"] for run in curves["runs"]] == [run["n_steps"] for run in curves["runs"]]
    assert curves["differences"]["model.family"] == ["bert", "gru"]

    by_word = danlu("predict", f"tiny@{alias}", "好棒赞喜", "差烂坏假", "--json").json
    by_line = danlu("predict", found["model"], "--json", stdin="好棒赞喜\n差烂坏假\r\n".encode()).json
    assert by_word["predictions"] == by_line["predictions"]
    assert [answer["label"] for answer in by_word["predictions"]] == ["good", "bad"]
    for answer in by_word["predictions"]:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(answer["probabilities"], key=answer["probabilities"].get) == answer["label"]
    shown = danlu("predict", found["model"], "[bold]好[/red] :smile:")
    assert "[bold]好[/red] :smile:" in shown.out

    evaluation = danlu("eval", f"tiny@{alias}", "bootstrap=200", "--json").json
    assert evaluation["n_resamples"] == 200
    assert evaluation["metrics"]["macro_f1"]["value"] == found["metrics"]["ensemble"]["macro_f1"]["value"]

    compared = danlu("compare", "tiny-tfidf-lr@latest", f"tiny@{alias}", "--json").json
    assert compared["models"][0]["metrics"]["macro_f1"]["difference"] == pytest.approx(found["gate"]["difference"])
    assert danlu("compare", "tiny-gru@latest", "tiny-bert@latest").code == 0


OTHERS = sorted(set(TRAINING) - {"text-classification"})
ASKED = {"image-classification": "bright.png", "language-modelling": "好棒", "translation": "好棒"}
ANSWERED = {"image-classification": "label", "language-modelling": "continuation", "translation": "translation"}


@pytest.mark.parametrize("task", OTHERS)
def test_the_whole_life_cycle_of_every_other_task(danlu, tmp_path, task):
    write_source(tmp_path, task)
    epochs = 12 if task == "image-classification" else 2
    (tmp_path / "tiny.yaml").write_text(recipe_text(FAMILY[task], task, train={"epochs": epochs}))
    said = danlu("run", tmp_path / "tiny.yaml", "--json")
    assert said.code in (0, 3), said.err
    found = said.json
    simple = next(label for label, baseline in BASELINES.items() if baseline.task == task)
    primary = TASKS[task].primary
    assert set(found["metrics"]) == {FAMILY[task], simple}
    values = {label: metrics[primary]["value"] for label, metrics in found["metrics"].items()}
    assert found["gate"]["metric"] == primary
    assert found["gate"]["difference"] == pytest.approx(values[FAMILY[task]] - values[simple], abs=1e-6)
    assert TASKS[task].higher_is_better == (task != "language-modelling")
    assert (found["gate"]["verdict"] == "better") == found["gate"]["passed"] == (said.code == 0)
    if found["gate"]["verdict"] != "no difference shown":
        assert (found["gate"]["verdict"] == "better") == (
            (found["gate"]["difference"] > 0) == TASKS[task].higher_is_better
        )
    assert Path(found["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    again = danlu("run", tmp_path / "tiny.yaml")
    assert again.code == said.code
    assert again.err.count("is there already") >= 1 + 2 + 2 + 1
    evaluation = danlu("eval", "tiny@latest", "bootstrap=200", "--json").json
    assert evaluation["metrics"][primary]["value"] == values[FAMILY[task]]
    compared = danlu("compare", f"tiny-{simple}@latest", "tiny@latest", "--json").json
    assert compared["models"][0]["verdict"] == found["gate"]["verdict"]
    for words in (["plan", tmp_path / "tiny.yaml"], ["data", tmp_path / "tiny.yaml"], ["log"]):
        assert danlu(*words).code == 0
    Image.fromarray(np.tile(np.repeat(np.uint8([220, 40]), 7), (14, 1))).save(tmp_path / "bright.png")
    for label in (simple, FAMILY[task]):
        target = "tiny@latest" if label == FAMILY[task] else f"tiny-{label}@latest"
        (answer,) = danlu("predict", target, ASKED[task], "--json").json["predictions"]
        assert isinstance(answer[ANSWERED[task]], str)
        if task == "image-classification":
            assert answer["label"] == "0"  # bright on the left
        assert danlu("predict", target, ASKED[task]).code == 0


def test_another_name_for_the_same_work_can_be_asked_by_that_name(danlu, recipe):
    assert danlu("train", recipe, "ensemble=[]", "pretrain.epochs=0", "train.epochs=1").code == 0
    renamed = danlu("train", recipe, "ensemble=[]", "pretrain.epochs=0", "train.epochs=1", "name=other")
    assert renamed.err.count("is there already") == 2
    assert danlu("predict", "other@latest", "好").code == 0


def test_plan_data_and_train_say_what_they_did(danlu, recipe):
    data = danlu("data", recipe, "--json").json
    assert data["summary"]["n_read"] == 400
    assert Path(data["card"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    plan = danlu("plan", recipe, "--json").json
    assert plan["family"] == "bert"
    assert plan["seconds"] > 0
    trained = danlu("train", recipe, "ensemble=[]", "--json").json
    assert trained["n_parameters"] == plan["n_parameters"]
    assert trained["n_steps"] + trained["pretraining"]["n_steps"] == plan["n_steps"]
    assert trained["n_tokens"] + trained["pretraining"]["n_tokens"] == plan["n_tokens"]
    for words in (["data", recipe], ["plan", recipe], ["train", recipe, "ensemble=[]"]):
        assert danlu(*words).code == 0
    runs = danlu.workspace / "runs"
    assert not list(runs.glob("*/events*"))
    watched = danlu("train", recipe, "ensemble=[]", "--tensorboard")
    assert f"tensorboard --logdir {runs}" in watched.err
    assert len(list(runs.glob("*/events.out.tfevents.*"))) == 1 + 1, "the model's and the pre-trained one's"


def test_every_value_of_a_recipe_has_an_origin(danlu, recipe):
    found = danlu("config", "show", recipe, "train.epochs=7", "model.dropout=0.5", "--json").json
    values = {key: (item["value"], item["from"]) for key, item in found["values"].items()}
    assert values["train.epochs"] == (7, "command line")
    assert values["model.dropout"] == (0.5, "command line")
    assert values["pretrain.epochs"] == (1, f"{recipe}:{line_of(recipe, 'epochs')}")
    assert values["data.clean.dedup"] == ("near", "default")
    assert values["model.size"] == ("tiny", "default")
    assert values["train.embedding_rate"][1] == "derived from model.family=bert, model.size=tiny"
    assert all(origin for _, origin in values.values())
    text = danlu("config", "show", recipe).out
    assert all(key in text for key in values)


def line_of(path: Path, word: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if f'"{word}"' in line)


def test_the_schema_knows_every_key_and_asks_for_no_more_than_is_needed(danlu):
    schema = danlu("config", "schema", "--json").json
    assert json.loads(danlu("config", "schema").out) == schema
    pairs = set()
    for branch in schema["anyOf"]:
        assert set(branch["required"]) == {"danlu", "name", "task", "data", "model"}
        assert branch["additionalProperties"] is False
        model = at(schema, branch["properties"]["model"])
        assert model["required"] == []  # the size, or a checkpoint, derives the rest
        assert model["anyOf"] == [{"required": ["family"]}, {"required": ["from"]}]
        pairs.add((branch["properties"]["task"]["const"], model["properties"]["family"]["const"]))
    assert pairs == {
        (task, family) for task in TRAINING for family in FAMILIES.names() if task in FAMILIES[family].tasks
    }
    for reference in re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema)):
        assert reference in schema["$defs"]
    undescribed = [
        f"{name}.{key}"
        for name, part in schema["$defs"].items()
        for key, value in part.get("properties", {}).items()
        if not value.get("description")
    ]
    assert not undescribed


def at(schema: dict, value: dict) -> dict:
    reference = value.get("$ref") or value["allOf"][0]["$ref"]
    return schema["$defs"][reference.removeprefix("#/$defs/")]


def test_the_doctor_is_content(danlu):
    found = danlu("doctor", "--json")
    assert found.code == 0
    assert found.json["ok"]
    assert {"Python and packages", "disk", "made-up training"} <= {f["what"] for f in found.json["findings"]}
    assert danlu.files() == []
