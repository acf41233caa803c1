"""Starting from a checkpoint: all of it trained, adapters, the head alone; and how much a few examples buy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from small import made_up, recipe_text, write_csv

TINY = {"epochs": 1, "batch_tokens": 512}


@pytest.fixture
def base(tmp_path: Path, danlu) -> None:
    """A model to start from, called ``tiny@latest``."""
    write_csv(tmp_path / "texts.csv", made_up(200))
    path = tmp_path / "base.yaml"
    path.write_text(recipe_text("bert", train=TINY))
    assert danlu("train", path).code == 0


def fine_tuning(folder: Path, **sections: object) -> Path:
    values = json.loads(recipe_text("bert", train=TINY, name="tuned", **sections))
    values["model"] = {"from": "tiny@latest"}
    path = folder / "tuned.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.usefixtures("base")
def test_all_of_it_adapters_and_the_head_beside_each_other(tmp_path, danlu):
    recipe = fine_tuning(
        tmp_path,
        variants={"lora": {"train": {"adapt": {"mode": "lora"}}}, "head": {"train": {"adapt": {"mode": "head"}}}},
        evaluate={"bootstrap": 100, "few_shot": {"shots": [4, 8], "repeats": 2, "epochs": 1}},
    )
    done = danlu("run", recipe, "--json")
    assert done.code in (0, 3), done.err
    assert set(done.json["metrics"]) == {"bert", "lora", "head", "tfidf-lr"}
    facts = {model["name"]: model for model in danlu("log", "--json").json["models"]}
    whole, lora, head = (facts[name] for name in ("tuned", "tuned-lora", "tuned-head"))
    assert whole["n_trained"] == whole["n_parameters"] > lora["n_trained"] > head["n_trained"] > 0
    assert 0 <= lora["merge_difference"] < 1e-4
    assert (Path(lora["path"]) / "adapter" / "adapter_model.safetensors").is_file()
    parent = json.loads((Path(whole["path"]) / "manifest.json").read_text())["parents"]["start"]
    assert parent == json.loads((Path(facts["tiny"]["path"]) / "manifest.json").read_text())["digest"]
    page = Path(done.json["report"]).read_text(encoding="utf-8")
    assert all(f">{label}<" in page for label in ("lora", "head"))
    answers = danlu("predict", "tuned-lora@latest", "好棒赞喜", "--json").json["predictions"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("base")
def test_a_size_that_is_not_the_checkpoints_and_a_checkpoint_that_is_not_there(tmp_path, danlu):
    recipe = fine_tuning(tmp_path)
    wrong = danlu("train", recipe, "model.d_model=32")
    assert wrong.code == 2
    assert "model.d_model is 32, and the checkpoint's is 16" in wrong.err
    missing = danlu("train", recipe, "model.from=nowhere")
    assert missing.code == 2
    assert "there is no checkpoint 'nowhere'" in missing.err
    assert "sample:NAME" in missing.err


@pytest.mark.usefixtures("base")
def test_a_variant_that_speaks_of_other_data_is_refused(tmp_path, danlu):
    wrong = danlu("config", "show", fine_tuning(tmp_path, variants={"other": {"data": {"source": "x.csv"}}}))
    assert wrong.code == 2
    assert "a variant says nothing of 'data'" in wrong.err
    misspelt = danlu("config", "show", fine_tuning(tmp_path, variants={"other": {"train": {"epoch": 2}}}))
    assert misspelt.code == 2
    assert "did you mean 'epochs'?" in misspelt.err
