from __future__ import annotations

import json

import pytest

from danlu.core.errors import DivergedError
from danlu.core.progress import Silent
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from danlu.tune.trial import Outcome, try_training
from small import SCORE, make_dataset, material_of, spec_of


@pytest.fixture
def made(tmp_path):
    workspace, dataset = make_dataset(tmp_path)
    return workspace, dataset, spec_of(tmp_path, train={"epochs": 3, "batch_tokens": 512})


def test_a_trial_is_the_training_that_the_recipe_would_do(tmp_path, made):
    workspace, dataset, spec = made
    told: list[tuple[int, float]] = []
    (tmp_path / "trial").mkdir()
    outcome = try_training(
        material_of(dataset, spec, tmp_path / "trial"), lambda *each: told.append(each) or False, Silent()
    )
    model = train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent())
    facts = model.json("training.json")
    assert outcome == Outcome(facts["n_steps"], facts["best_score"])
    lines = [json.loads(line) for line in (model.path / "metrics.jsonl").read_text().splitlines()]
    assert told == [(line["step"], line["valid"]["score"]) for line in lines if "valid" in line]
    assert len(told) == 3


def test_it_stops_at_once_when_it_is_told_to_but_not_after_the_last_step(tmp_path, made):
    _, dataset, spec = made
    for n, name in ((1, "first"), (2, "second"), (3, "last")):
        told: list[int] = []
        (tmp_path / name).mkdir()

        def watch(step: int, _score: float, told: list[int] = told, n: int = n) -> bool:
            told.append(step)
            return len(told) == n

        outcome = try_training(material_of(dataset, spec, tmp_path / name), watch, Silent())
        assert len(told) == n
        assert (outcome.score is None) == (n < 3)


def test_a_training_that_diverges_says_so(tmp_path, made):
    _, dataset, _ = made
    spec = spec_of(tmp_path, train={"learning_rate": 1e30, "clip_norm": 1e30})
    (tmp_path / "trial").mkdir()
    with pytest.raises(DivergedError):
        try_training(material_of(dataset, spec, tmp_path / "trial"), lambda *_: False, Silent())
