"""What a user may get wrong, and what a machine may do to them: each with the message, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from small import made_up, recipe_text, write_csv

ROWS = made_up(240)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_csv(tmp_path / "texts.csv", ROWS)
    return write_recipe(tmp_path)


def write_recipe(folder: Path, **sections) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(recipe_text("bert", **sections))
    return path


@pytest.fixture
def refused(danlu):
    """Run a command that must fail, and take its message apart: what, where, what to do."""

    def run(*words, code: int = 1, what: str, where: str, advice: str, stdin: bytes = b"") -> SimpleNamespace:
        said = danlu(*words, "--json", stdin=stdin)
        assert said.code == code, said.err
        assert "Traceback" not in said.err + said.out
        message = said.err[said.err.index("error: ") :]
        parts = [said.json["error"], said.json["where"], said.json["advice"]]
        for part, expected in zip(parts, (what, where, advice), strict=True):
            assert part, message
            assert expected in part, message
            assert part in message  # what programs are told, people are told too
        assert said.json["exit_code"] == code
        half = [name for name in danlu.files() if ".scratch-" in name or "/." in name]
        assert not half
        return SimpleNamespace(message=message, err=said.err)

    return run


def no_artifact(danlu) -> bool:
    return not [name for name in danlu.files() if name.startswith("artifacts")]


def test_an_empty_file(danlu, refused, recipe, tmp_path):
    (tmp_path / "texts.csv").write_bytes(b"")
    refused("run", recipe, what="the file is empty", where="texts.csv", advice="fill it")
    assert no_artifact(danlu)
    (tmp_path / "texts.csv").write_text("text,label\n")
    refused("data", recipe, what="the file holds no record", where="texts.csv", advice="fill it")
    assert no_artifact(danlu)


def test_a_file_that_is_not_there(danlu, refused, recipe):
    words = ("data", recipe, "data.source=text.csv")
    refused(*words, code=2, what="there is no such file", where="text.csv", advice="did you mean 'texts.csv'?")
    assert no_artifact(danlu)


def test_a_missing_column(danlu, refused, recipe):
    words = ("run", recipe, "data.columns={text: txt, label: label}")
    refused(*words, what="no column is called 'txt'", where="texts.csv", advice="did you mean 'text'?")
    assert no_artifact(danlu)


def test_no_labels(refused, recipe):
    words = ("train", recipe, "data.columns={text: text}")
    refused(*words, what="the dataset has no column 'label'", where="train.parquet", advice="it has")


def test_a_label_that_is_seen_only_in_test(danlu, refused, recipe, tmp_path):
    rows = [f"{text},{label},{'train' if n < 160 else 'valid' if n < 200 else 'test'}" for n, (text, label) in
            enumerate(ROWS)]  # fmt: skip
    rows.append("一个谁也没见过的很奇怪的文本啊,odd,test")
    (tmp_path / "texts.csv").write_text("\n".join(["text,label,split", *rows]), encoding="utf-8")
    columns = "data.columns={text: text, label: label, split: split}"
    words = ("run", recipe, columns, "data.split.column=split")
    refused(*words, what="the label 'odd' is in test and never in train", where="texts.csv:242", advice="mend it")
    assert no_artifact(danlu)


def test_one_class_only(danlu, refused, recipe, tmp_path):
    write_csv(tmp_path / "texts.csv", [(text, "good") for text, _ in ROWS])
    words = {"what": "every record left has the label 'good'", "where": "data.columns.label"}
    refused("run", recipe, advice="two labels or more", **words)
    assert no_artifact(danlu)


def test_a_line_of_a_hundred_megabytes(danlu, recipe, tmp_path):
    with (tmp_path / "texts.csv").open("ab") as file:
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b",good\n")
    said = danlu("data", recipe, "--json")
    assert said.code == 0, said.err
    assert said.json["summary"]["dropped"]["line_too_long"] == 1
    assert said.json["summary"]["n_read"] == len(ROWS) + 1


def test_lines_that_are_no_text(danlu, recipe, tmp_path):
    with (tmp_path / "texts.csv").open("ab") as file:
        file.write("最后一行".encode() + b"\xff\xfe\x00\x81,good\n" * 3)
    said = danlu("data", recipe, "--json")
    assert said.code == 0, said.err
    assert said.json["summary"]["dropped"]["undecodable"] == 3
    assert said.json["summary"]["n_read"] == len(ROWS) + 3


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [("train", "epoch", "epochs"), ("model", "n_head", "n_heads"), ("data", "sorce", "source")],
)
def test_a_misspelt_key(danlu, refused, tmp_path, section, key, nearest):
    path = write_recipe(tmp_path, **{section: {key: 1}})
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if f'"{key}"' in text)
    words = {"what": f"unknown key '{section}.{key}'", "advice": f"did you mean '{nearest}'?"}
    refused("run", path, code=2, where=f"{path}:{line}", **words)
    assert danlu.files() == []


def test_a_misspelt_key_on_the_command_line(refused, recipe):
    words = {"what": "unknown key 'train.lerning_rate'", "advice": "did you mean 'learning_rate'?"}
    refused("train", recipe, "train.lerning_rate=1", code=2, where="command line", **words)
    refused("train", recipe, "train.epochs", code=2, what="not understood", where="command line", advice="key=value")


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("train.epochs=0", "train.epochs"),
        ("train.learning_rate=-1", "train.learning_rate"),
        ("model.n_heads=3", "even multiple of n_heads=3"),
        ("data.split.valid=1", "data.split.valid"),
        ("evaluate.baselines=[]", "evaluate.baselines"),
        ("seed=yes", "a number is due"),
    ],
)
def test_a_value_that_makes_no_sense(danlu, recipe, word, what):
    said = danlu("train", recipe, word, "--json")
    assert said.code == 2, said.err
    assert what in said.json["error"]
    assert said.json["where"]
    assert danlu.files() == []


def test_a_model_that_does_not_exist_is_named_before_anything_is_trained(danlu, refused, recipe):
    what = "no model for text-classification is called 'tfidf'"
    words = {"code": 2, "what": what, "advice": "did you mean 'tfidf-lr'?"}
    refused("run", recipe, "evaluate.baselines=[tfidf]", where="evaluate.baselines", **words)
    refused("run", recipe, "ensemble=[tfidf]", where="ensemble", **words)
    own = {"code": 2, "what": "bert would be compared with itself", "advice": "put another family first"}
    refused("run", recipe, "evaluate.baselines=[bert]", where="evaluate.baselines", **own)
    refused("run", recipe, "model.size=huge", code=2, what="no size 'huge'", where="model.size", advice="known here")
    assert danlu.files() == []


def test_a_family_that_cannot_name_hidden_tokens(refused, tmp_path):
    write_csv(tmp_path / "texts.csv", ROWS)
    path = tmp_path / "gru.yaml"
    path.write_text(recipe_text("gru"))
    words = ("train", path, "pretrain.epochs=1")
    refused(*words, code=2, what="a gru is not trained to name", where="pretrain.epochs", advice="pretrain.epochs=0")


def test_an_empty_split(danlu, refused, recipe):
    refused("train", recipe, "data.split.valid=0", what="the valid split is empty", where="tiny-", advice="data.split")
    words = {"what": "the test split is empty", "where": "tiny-", "advice": "set data.split.test above 0"}
    refused("run", recipe, "data.split.test=0", **words)
    assert not [name for name in danlu.files() if name.startswith("runs")]  # refused before anything is trained


def test_a_learning_rate_of_a_million(danlu, refused, recipe):
    words = ("train", recipe, "train.learning_rate=1e6", "train.epochs=8", "train.checkpoint_seconds=0")
    what = "the step was not taken, the last checkpoint is intact"
    refused(*words, what=what, where="training", advice="lower train.learning_rate")
    assert not [name for name in danlu.files() if name.startswith("artifacts/model")]
    assert [name for name in danlu.files() if "/checkpoints/step-" in name]


DISK = 260
"""Kilobytes: room for the dataset and for two checkpoints, not for three."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "workspace"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_while_saving(danlu, refused, recipe, small_disk):
    words = ("train", recipe, "train.checkpoint_seconds=0")
    refused(*words, what="could not write", where=str(small_disk), advice="free some space")
    before = [name for name in danlu.files() if "/checkpoints/step-" in name]
    assert before
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    said = danlu(*words)
    assert said.code == 0, said.err
    assert "resumed at step" in said.err


@pytest.mark.parametrize("kilobytes", [0, 4, 8, 16, 32, 64, 96, 128])
def test_a_full_disk_at_any_point_is_told_clearly(danlu, recipe, small_disk, kilobytes):
    """What does not fit differs with the room there is: a folder, the dataset, the tokenizer, a checkpoint."""
    if kilobytes:
        (small_disk / "ballast").write_bytes(b"x" * (DISK - kilobytes) * 1024)
    else:
        (small_disk / "ballast").touch()
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "ballast").write_bytes(b"x" * (DISK + 40) * 1024)
    said = danlu("train", recipe, "--json")
    assert said.code == 1, said.err
    assert "could not write" in said.json["error"]
    assert "free some space" in said.json["advice"]
    assert not [name for name in danlu.files() if ".scratch-" in name]


def test_a_corrupted_checkpoint(danlu, recipe):
    words = ("train", recipe, "train.checkpoint_seconds=0")
    assert danlu(*words, "train.learning_rate=1e6").code == 1
    (*_, last) = sorted(danlu.workspace.glob("runs/*/checkpoints/step-*"))
    path = last / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    said = danlu(*words, "train.learning_rate=1e6")
    assert f"{last.name} is damaged (optimizer.safetensors is not what was written" in said.err
    assert "going back to the one before" in said.err
    assert "Traceback" not in said.err


def test_a_corrupted_model_is_not_asked(danlu, refused, recipe):
    trained = danlu("train", recipe, "train.epochs=1", "--json").json
    for name in ("model.safetensors", "model.json", "tokenizer.json", "manifest.json"):
        path = Path(trained["model"]) / name
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        for target in ("tiny@latest", trained["model"]):
            said = danlu("predict", target, "好", "--json")
            assert said.code == 1, said.err
            assert "Traceback" not in said.err
            assert trained["model"] in said.json["where"]
        if name != "manifest.json":
            words = ("predict", "tiny@latest", "好")
            refused(*words, what=f"{name} was changed", where=trained["model"], advice="run the same command again")
        path.write_bytes(whole)
    assert danlu("predict", "tiny@latest", "好").code == 0


def test_a_name_that_means_nothing(danlu, refused, recipe):
    nothing = {"code": 2, "where": "ledger.jsonl"}
    refused("predict", "tiny@latest", "好", what="no model is named 'tiny'", advice="danlu run RECIPE", **nothing)
    assert danlu("train", recipe, "train.epochs=1").code == 0
    refused("predict", "tiny@lastest", "好", what="no alias 'lastest'", advice="did you mean 'latest'?", **nothing)
    refused("predict", "tny@latest", "好", what="no model is named 'tny'", advice="did you mean 'tiny'?", **nothing)
    words = {"code": 2, "where": str(danlu.workspace), "advice": "danlu log lists them"}
    refused("predict", "no/such/folder", "好", what="not an artifact's folder: no/such/folder", **words)
    words = {"code": 2, "what": "a comparison needs two models", "where": "tiny@latest", "advice": "danlu compare"}
    refused("compare", "tiny@latest", **words)
    refused("compare", "tiny@latest", "tiny@latest", **words)
    dataset = next((danlu.workspace / "artifacts" / "dataset").glob("tiny-*"))
    refused(
        "predict", dataset, "好", code=2, what="this is a dataset, not a model", where=str(dataset), advice="danlu log"
    )


def test_questions_that_are_no_text(danlu, refused, recipe):
    assert danlu("train", recipe, "train.epochs=1").code == 0
    words = {"code": 2, "what": "the text is not UTF-8", "advice": "iconv"}
    refused("predict", "tiny@latest", where="stdin", stdin="好\n质量".encode("gb18030"), **words)
    refused("predict", "tiny@latest", "\udce4\udcbd", where="command line", **words)
    assert danlu("predict", "tiny@latest", "--json").json["predictions"] == []


def test_a_workspace_that_cannot_be_written_to(refused, recipe, tmp_path):
    (tmp_path / "workspace").write_text("a file")
    where = str(tmp_path / "workspace")
    refused("run", recipe, what="could not write", where=where, advice="choose another folder")
    assert (tmp_path / "workspace").read_text() == "a file"


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only disk has to be mounted")
def test_a_disk_that_is_read_only(refused, recipe, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused("run", recipe, what="could not write", where=str(small_disk), advice="read-only")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_belongs_to_somebody_else(danlu, refused, recipe):
    danlu.workspace.mkdir(mode=0o500)
    refused("run", recipe, what="could not write", where=str(danlu.workspace), advice="choose a folder")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "task is missing"),
        ("danlu: 1\ntask: text-classification\n", "model.family is missing"),
        ("- a\n", "a recipe is a mapping"),
        ("a: [1\n", "not valid YAML"),
        ("danlu: 1\ntask: text-classification\nmodel: {family: brt}\n", "model.family is unknown: 'brt'"),
        ("danlu: 1\ntask: cooking\nmodel: {family: bert}\n", "task is unknown: 'cooking'"),
        ("danlu: 2\ntask: text-classification\nmodel: {family: bert}\n", "name is missing"),
    ],
)
def test_a_recipe_that_is_none(danlu, tmp_path, content, what):
    (tmp_path / "odd.yaml").write_text(content)
    said = danlu("config", "show", tmp_path / "odd.yaml", "--json")
    assert said.code == 2
    assert what in said.json["error"]


def test_a_recipe_that_is_not_there(refused, tmp_path):
    path = tmp_path / "none.yaml"
    refused("run", path, code=2, what="cannot read the recipe", where=str(path), advice="give the path")


def test_the_traceback_is_shown_when_it_is_asked_for(recipe):
    command = [sys.executable, "-m", "danlu", "run", str(recipe), "nonsense=1", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UsageError: unknown key 'nonsense'" in done.stderr
