"""A search from a recipe to its page, killed and taken up again, through the command line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from forking import forking
from small import FAMILY, recipe_text, write_source
from sudden_death import danlu_until_killed

SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 0.03, "log": True},
    "train.batch_tokens": [256, 512],
}
KEPT = ["journal.log", "lock", "seeds.json", "study.json"]


def write_recipe(folder: Path, task: str = "text-classification", **sections) -> Path:
    write_source(folder, task)
    path = folder / "tiny.yaml"
    path.write_text(recipe_text(FAMILY[task], task, **sections), encoding="utf-8")
    return path


def trials_of(workspace: Path) -> bytes:
    (found,) = (workspace / "artifacts" / "tuning").glob("tiny-*/trials.json")
    return found.read_bytes()


MOMENTS = [
    ("after", "danlu.tune.study:Study.begin", 1),  # the first trial is written down, and nothing done
    ("before", "danlu.train.checkpoint:Run.read", 1),  # trained, and not yet told
    ("after", "danlu.train.checkpoint:Run.save", 4),
    ("before", "optuna.trial:Trial.report", 3),  # an evaluation's step is written down and its score is not
    ("after", "optuna.trial:Trial.report", 2),
    ("after", "danlu.tune.study:Study.end", 1),  # a trial has ended and its run is still there
    ("before", "danlu.tune.study:Study.importances", 1),  # all have
]
"""When searches are killed, one after another in one workspace."""


class Searcher:
    """Starts searches in a folder; each is a process of its own with the imports already done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self._context = forking()

    def run(self, moment: tuple[str, str, int] | None = None) -> int | None:
        """Start one that is killed at a moment, or ends; its exit code."""
        words = ["tune", str(self.folder / "tiny.yaml"), "-w", str(self.workspace)]
        process = self._context.Process(target=danlu_until_killed, args=(words, self.folder / "log.txt", moment))
        process.start()
        process.join()
        return process.exitcode


@pytest.mark.timeout(300)
def test_a_search_that_is_killed_goes_on_to_the_same_trials(danlu, tmp_path):
    searchers = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        train = {"epochs": 3, "learning_rate": 3e-3}
        write_recipe(tmp_path / name, train=train, tune={"trials": 6, "warmup_trials": 2, "space": SPACE})
        searchers[name] = Searcher(tmp_path / name)
    whole, killed = searchers.values()
    log = tmp_path / "killed" / "log.txt"
    assert whole.run() == 0, (tmp_path / "whole" / "log.txt").read_text()
    for moment in MOMENTS:
        assert killed.run(moment) == -9, (moment, log.read_text())
    assert killed.run() == 0, log.read_text()
    assert log.read_text().count("was interrupted and goes on") == 5
    assert trials_of(killed.workspace) == trials_of(whole.workspace)

    found = json.loads(trials_of(whole.workspace))
    assert found["counts"]["pruned"] >= 1
    assert found["counts"]["complete"] >= 3
    assert (
        found["trials"][0]["values"]
        == {"train.learning_rate": 3e-3, "train.batch_tokens": 512}
        == found["own"]["values"]
    )
    best = max((trial for trial in found["trials"] if trial["state"] == "complete"), key=lambda trial: trial["score"])
    assert found["best"] == {"values": best["values"], "trial": best["number"], "score": best["score"]}
    for workspace in (whole.workspace, killed.workspace):
        assert {path.name for path in (workspace / "artifacts").iterdir()} == {"dataset", "tuning"}
        assert not (workspace / "refs").exists()
        assert not (workspace / "runs").exists()
        (folder,) = (workspace / "tune").iterdir()
        assert sorted(path.name for path in folder.iterdir()) == KEPT

    shutil.move(killed.workspace, danlu.workspace)
    recipe = tmp_path / "killed" / "tiny.yaml"
    again = danlu("tune", recipe, "--json")
    assert again.json["trials"] == found["trials"]
    assert "6 of 6 trials are there already" in again.err
    more = danlu("tune", recipe, "tune.trials=7", "--json")
    assert more.json["trials"][:6] == found["trials"]
    assert len(more.json["trials"]) == 7
    trained = danlu("train", recipe, *found["words"], "--json")
    assert trained.json["best_score"] == best["score"], "the words that are printed give what was found"


def test_the_answer_is_ready_to_paste(danlu, tmp_path):
    recipe = write_recipe(tmp_path, train={"epochs": 1}, tune={"trials": 2})
    said = danlu("tune", recipe, "train.clip_norm=2", "tune.epochs=2", "name=other")
    assert said.code == 0, said.err
    assert "2 trials: 2 complete, 0 pruned, 0 failed" in said.out
    assert "is optimistic" in said.out
    assert "train.epochs was 2 in a trial and is 1 in the recipe" in said.out
    command = said.out.split("use it      ")[1].split()
    assert command[:5] == ["danlu", "train", str(recipe), "train.clip_norm=2", "name=other"]
    assert sorted(word.split("=")[0] for word in command[5:]) == [
        "model.dropout",
        "train.batch_tokens",
        "train.learning_rate",
    ]
    assert danlu(*command[1:], "train.epochs=1").code == 0
    found = danlu("tune", recipe, "train.clip_norm=2", "tune.epochs=2", "name=other", "--json").json
    assert found["command"].split() == command
    page = Path(found["page"])
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads((page.parent / "trials.json").read_text(encoding="utf-8"))["best"] == found["best"]
    manifest = json.loads((page.parent / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parents"].keys() == {"dataset"}
    assert manifest["commitments"]


def test_a_pre_training_of_the_recipes_own_is_kept_and_others_are_not(danlu, tmp_path):
    space = {"model.dropout": [0.1, 0.2], "train.learning_rate": [1e-3, 2e-3]}
    recipe = write_recipe(tmp_path, pretrain={"epochs": 1}, train={"epochs": 1}, tune={"trials": 5, "space": space})
    found = danlu("tune", recipe, "--json")
    assert found.code == 0, found.err
    assert {trial["values"]["model.dropout"] for trial in found.json["trials"]} == {0.1, 0.2}
    assert any(trial["same_as"] for trial in found.json["trials"])
    (own,) = (danlu.workspace / "artifacts" / "pretrained").glob("tiny*")
    trained = danlu("train", recipe, "--json")
    assert f"{own.name} is there already" in trained.err
    assert trained.json["best_score"] == found.json["trials"][0]["score"]
    (folder,) = (danlu.workspace / "tune").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == KEPT


@pytest.mark.parametrize("task", sorted(set(FAMILY) - {"text-classification"}))
def test_every_task_can_be_searched(danlu, tmp_path, task):
    recipe = write_recipe(tmp_path, task, train={"epochs": 1}, tune={"trials": 2, "sampler": "random"})
    found = danlu("tune", recipe, "--json")
    assert found.code == 0, found.err
    scores = [trial["score"] for trial in found.json["trials"]]
    assert found.json["best"]["score"] == max(scores)
    assert (max(scores) < 0) == (task in ("language-modelling", "translation"))


def test_values_that_do_not_fit_fail_their_trial_and_not_the_search(danlu, tmp_path):
    space = {"model.n_heads": [2, 3], "train.learning_rate": {"low": 1e-3, "high": 2e-3}}
    recipe = write_recipe(tmp_path, train={"epochs": 1}, tune={"trials": 5, "space": space})
    found = danlu("tune", recipe, "train.learning_rate=1e-3", "--json")
    assert found.code == 2, "each value is tried on its own first"
    assert "model.n_heads cannot be searched so" in found.json["error"]
    space |= {"model.n_heads": [1, 2], "model.d_model": [16, 18]}  # 18 is no even multiple of 2
    recipe = write_recipe(tmp_path, model={"n_heads": 1}, train={"epochs": 1}, tune={"trials": 6, "space": space})
    found = danlu("tune", recipe, "--json")
    assert found.code == 0, found.err
    assert found.json["counts"]["failed"] >= 1
    for trial in found.json["trials"]:
        misfit = trial["values"]["model.n_heads"] == 2 and trial["values"]["model.d_model"] == 18
        assert (trial["state"] == "failed") == misfit
        assert (trial["why"] is not None) == misfit


def test_a_search_in_which_every_trial_fails_says_so(danlu, tmp_path):
    space = {"train.learning_rate": [1e30, 2e30]}
    recipe = write_recipe(tmp_path, train={"clip_norm": 1e30}, tune={"trials": 2, "space": space})
    for _ in range(2):
        found = danlu("tune", recipe, "--json")
        assert found.code == 1
        assert "none of 2 trials came to its end" in found.json["error"]
        assert "narrow tune.space" in found.json["advice"]
    assert not (danlu.workspace / "artifacts" / "tuning").exists()


def test_without_optuna_nothing_is_begun(danlu, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    found = danlu("tune", write_recipe(tmp_path), "--json")
    assert found.code == 2
    assert found.json["advice"] == "pip install 'danlu[tune]'"
    assert danlu.files() == []
