"""A trained model leaves as a folder that other programs load."""

from __future__ import annotations

import pytest
import torch

from small import recipe_text, write_source

transformers = pytest.importorskip("transformers")

PROMPT = "好棒"


@pytest.fixture
def recipe(tmp_path):
    write_source(tmp_path, "language-modelling")
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_text("gpt", "language-modelling", train={"epochs": 1}))
    return path


def test_transformers_loads_an_exported_model_and_writes_the_same(danlu, recipe, tmp_path):
    assert danlu("train", recipe).code == 0
    said = danlu("export", "tiny@latest", tmp_path / "out", "--json")
    assert said.code == 0, said.err
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(said.json["files"])
    asked = ["predict", "tiny@latest", PROMPT, "--decode", "temperature=0", "--decode", "top_p=1", "--json"]
    (ours,) = danlu(*asked, "--decode", "max_new_tokens=8").json["predictions"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    tokens = [tokenizer.bos_token_id, *tokenizer(PROMPT, add_special_tokens=False).input_ids]
    written = model.generate(torch.tensor([tokens]), max_new_tokens=8, do_sample=False)[0, len(tokens) :]
    assert tokenizer.decode(written, skip_special_tokens=True) == ours["continuation"]


def test_what_cannot_be_exported_says_why_and_leaves_nothing(danlu, recipe, tmp_path):
    assert danlu("run", recipe).code in (0, 3)
    simple = danlu("export", "tiny-5-gram@latest", tmp_path / "out")
    assert simple.code == 2
    assert "a 5-gram for language-modelling has no counterpart in transformers" in simple.err
    (tmp_path / "there").mkdir()
    there = danlu("export", "tiny@latest", tmp_path / "there")
    assert there.code == 2
    assert "the folder is there already" in there.err
    assert danlu("export", "nobody@latest", tmp_path / "out").code == 2
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "there").iterdir())
