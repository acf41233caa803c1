"""The record of a search; what it is asked for here is no training but a formula."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from danlu.core.errors import UsageError
from danlu.core.seeds import Seeds
from danlu.tune.config import Range, TuneConfig
from danlu.tune.study import Attempt, Study, Tried, require_optuna

SPACE = {
    "train.learning_rate": Range(low=1e-4, high=1e-2, log=True),
    "train.betas": ([0.9, 0.98], [0.9, 0.999]),
    "model.n_layers": Range(low=1, high=7, step=2),
    "model.dropout": Range(low=0.0, high=0.4, step=0.1),
}
CONFIG = TuneConfig(warmup_trials=3)
N_EVALUATIONS = 3


def opened(folder: Path, config: TuneConfig = CONFIG, seed: str = "1", space=SPACE) -> Study:
    folder.mkdir(exist_ok=True)
    return Study(folder, space, config, Seeds.new(seed))


def score(attempt: Attempt, evaluation: int) -> float:
    values = attempt.values
    distance = abs(values["train.learning_rate"] - 3e-3) * 30 + values["model.dropout"] * attempt.number % 0.07
    return round(0.9 - distance - 0.1 / evaluation, 6)


def carry_out(study: Study, attempt: Attempt, n_evaluations: int = N_EVALUATIONS) -> None:
    """A trial to its end, or to where it is killed: after so many evaluations."""
    best = -1.0
    for evaluation in range(1, n_evaluations + 1):
        best = max(best, score(attempt, evaluation))
        if study.report(attempt, 10 * evaluation, score(attempt, evaluation)) and evaluation < N_EVALUATIONS:
            study.end(attempt, "pruned", n_steps=30)
            return
    if n_evaluations == N_EVALUATIONS:
        study.end(attempt, "complete", score=best, n_steps=30)


def search(study: Study, n: int) -> list[Tried]:
    while len(study.tried()) < n:
        attempt = study.under_way() or study.begin(None, repeatable=False)
        assert isinstance(attempt, Attempt)
        carry_out(study, attempt)
    return study.tried()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_is_killed_again_and_again_comes_to_the_same_trials(tmp_path, sampler):
    config = TuneConfig(warmup_trials=3, sampler=sampler)
    whole = search(opened(tmp_path / "whole", config), 14)
    assert {trial.state for trial in whole} == {"complete", "pruned"}
    assert [trial.number for trial in whole] == list(range(1, 15))
    for number in range(14):
        study = opened(tmp_path / "killed", config)
        attempt = study.under_way() or study.begin(None, repeatable=False)
        carry_out(study, attempt, number % N_EVALUATIONS)  # and no further
        again = opened(tmp_path / "killed", config).under_way()
        if again is not None:
            assert again == Attempt(attempt.number, attempt.values, True)
            carry_out(opened(tmp_path / "killed", config), again)
    assert opened(tmp_path / "killed", config).tried() == whole


def test_another_seed_draws_other_values(tmp_path):
    first, other = (search(opened(tmp_path / seed, seed=seed), 2) for seed in ("1", "2"))
    assert first[0].values != other[0].values
    assert first[0].values != first[1].values


def test_values_lie_in_the_space_and_are_what_is_shown(tmp_path):
    for trial in search(opened(tmp_path / "search"), 12):
        assert trial.values.keys() == SPACE.keys()
        for key, value in trial.values.items():
            assert SPACE[key].holds(value) if isinstance(SPACE[key], Range) else value in SPACE[key]
            assert len(json.dumps(value)) <= 12, "no more digits than can be typed"


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path):
    whole = search(opened(tmp_path / "search"), 4)
    journal = tmp_path / "search" / "journal.log"
    lines = journal.read_bytes()
    journal.write_bytes(lines + b'{"op_code":4,"worker')
    assert opened(tmp_path / "search").tried() == whole
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    assert journal.read_bytes().startswith(lines)
    search(opened(tmp_path / "search"), 5)


def test_a_trial_is_stopped_where_it_lags_behind_once_enough_are_complete(tmp_path):
    study = opened(tmp_path / "search")
    for level in (0.8, 0.6, 0.7):
        attempt = study.begin(None, repeatable=False)
        assert not study.report(attempt, 10, level)
        study.end(attempt, "complete", score=level, n_steps=20)
    for level, lags in ((0.69, True), (0.71, False)):
        attempt = study.begin(None, repeatable=False)
        assert study.report(attempt, 37, level) is lags, "compared with the others' first evaluation, at step 10"
        ended = study.end(attempt, "pruned", n_steps=74)
        assert (ended.state, ended.score, ended.curve, ended.n_steps) == ("pruned", level, ((37, level),), 74)
    never = opened(tmp_path / "never", TuneConfig(pruner="none"))
    for level in (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1):
        attempt = never.begin(None, repeatable=False)
        assert not never.report(attempt, 10, level)
        never.end(attempt, "complete", score=level, n_steps=10)


def test_a_failed_trial_says_why_and_has_no_score(tmp_path):
    study = opened(tmp_path / "search")
    attempt = study.begin(None, repeatable=False)
    study.report(attempt, 10, 0.5)
    failed = study.end(attempt, "failed", why="the loss is nan")
    assert (failed.state, failed.score, failed.why, failed.curve) == ("failed", None, "the loss is nan", ((10, 0.5),))
    assert opened(tmp_path / "search").tried() == [failed]


def test_the_first_trial_may_be_given(tmp_path):
    own = {"train.learning_rate": 0.00123456789, "train.betas": [0.9, 0.999], "model.n_layers": 3, "model.dropout": 0.1}
    study = opened(tmp_path / "search")
    assert study.begin(own, repeatable=True).values == own
    study.end(study.under_way(), "complete", score=0.5, n_steps=1)
    assert study.begin(own, repeatable=True).values != own, "and only the first"


def test_values_that_were_tried_are_not_tried_again(tmp_path):
    study = opened(tmp_path / "search", space={"train.epochs": (1, 2), "train.optimizer": ("adamw", "muon")})
    trained = []
    while len(study.tried()) < 12:
        attempt = study.begin(None, repeatable=True)
        if isinstance(attempt, Attempt):
            trained.append(attempt.values)
            if len(trained) == 2:
                study.end(attempt, "failed", why="it diverged")
            else:
                study.report(attempt, 10, 0.5)
                study.end(attempt, "complete", score=0.5, n_steps=10)
    assert 2 <= len(trained) <= 4
    assert all(values not in trained[:n] for n, values in enumerate(trained))
    for trial in study.tried():
        if trial.same_as is not None:
            first = study.tried()[trial.same_as - 1]
            assert first.same_as is None
            assert (trial.values, trial.state, trial.score, trial.curve, trial.why, trial.n_steps) == (
                first.values, first.state, first.score, first.curve, first.why, first.n_steps,
            )  # fmt: skip
    assert len([trial for trial in study.tried() if trial.same_as is None]) == len(trained)


def test_importances_are_told_from_enough_complete_trials_on(tmp_path):
    study = opened(tmp_path / "search", TuneConfig(pruner="none", sampler="random"))
    for _ in range(40):
        attempt = study.begin(None, repeatable=False)
        level = attempt.values["model.dropout"] + 0.01 * attempt.values["model.n_layers"]
        study.report(attempt, 1, level)
        study.end(attempt, "complete", score=level, n_steps=1)
    assert study.importances(7) is None
    found = study.importances(40)
    assert next(iter(found)) == "model.dropout"
    assert found["model.dropout"] > 0.7
    assert sum(found.values()) == pytest.approx(1)
    assert study.importances(40) == found
    assert study.importances(8).keys() == SPACE.keys()


def test_nothing_is_told_of_importance_where_all_score_the_same(tmp_path):
    study = opened(tmp_path / "search")
    for _ in range(9):
        study.end(study.begin(None, repeatable=False), "complete", score=0.5, n_steps=1)
    assert study.importances(9) is None


def test_without_optuna_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match="optuna, which is not installed") as found:
        require_optuna()
    assert found.value.advice == "pip install 'danlu[tune]'"
