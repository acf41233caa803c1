from __future__ import annotations

from pathlib import Path

import pytest

from danlu.core.errors import DanluError, DivergedError, UsageError
from danlu.core.seeds import Seeds
from danlu.tune.config import Range, TuneConfig
from danlu.tune.search import Search, best_of
from danlu.tune.study import Study, Tried
from danlu.tune.trial import Outcome
from small import Listener

SPACE = {"train.learning_rate": Range(low=1e-4, high=1e-2, log=True)}


class Trainer:
    """Stands for the training: the score is the trial's place in a list; an error in it is raised."""

    def __init__(self, *outcomes: float | Exception) -> None:
        self.outcomes = list(outcomes)
        self.folders: list[Path] = []

    def __call__(self, values, folder, watch, progress) -> Outcome:
        (folder / "checkpoint").touch()
        assert values.keys() == SPACE.keys()
        self.folders.append(folder)
        outcome = self.outcomes.pop(0)
        progress.note("said by the loop")
        if isinstance(outcome, BaseException):
            raise outcome
        return Outcome(20, None if watch(10, outcome) else outcome)


def search(folder: Path, trainer: Trainer, n: int, first=None) -> tuple[list[Tried], list[str]]:
    folder.mkdir(exist_ok=True)
    study = Study(folder, SPACE, TuneConfig(warmup_trials=2), Seeds.new("1"))
    heard = Listener()
    tried = Search(study=study, folder=folder / "trials", n_trials=n, first=first, repeatable=False, train=trainer).run(
        heard
    )
    return tried, heard.notes


def test_each_trial_is_a_line_and_leaves_nothing(tmp_path):
    trainer = Trainer(0.7, 0.8, 0.6, DivergedError("the loss is nan"), UsageError("sizes do not fit"), 0.9)
    tried, notes = search(tmp_path / "s", trainer, 6, {"train.learning_rate": 0.001})
    assert [trial.state for trial in tried] == ["complete", "complete", "pruned", "failed", "failed", "complete"]
    assert best_of(tried).number == 6
    assert best_of(tried[:5]).number == 2
    assert best_of(tried[2:5]) is None
    assert notes[0] == "trial 1: train.learning_rate 0.001 → score 0.7000 (0 s); best so far 0.7000 (trial 1)"
    assert "pruned at step 10 of 20, score 0.6000 (0 s); best so far 0.8000 (trial 2)" in notes[2]
    assert "failed: the loss is nan" in notes[3]
    assert "failed: sizes do not fit" in notes[4]
    assert len(notes) == 6
    assert len(set(trainer.folders)) == 6
    assert not (tmp_path / "s" / "trials").exists()


def test_less_is_better_where_scores_are_negative(tmp_path):
    tried, _ = search(tmp_path / "s", Trainer(-7.0, -6.5), 2)
    assert best_of(tried).number == 2


def test_a_disk_that_is_full_ends_the_search_which_goes_on_from_there(tmp_path):
    with pytest.raises(DanluError, match="could not write"):
        search(tmp_path / "s", Trainer(0.7, DanluError("could not write")), 3)
    (left,) = (tmp_path / "s" / "trials").iterdir()
    assert [path.name for path in left.iterdir()] == ["checkpoint"]
    trainer = Trainer(0.75, 0.8)
    tried, notes = search(tmp_path / "s", trainer, 3)
    assert [trial.score for trial in tried] == [0.7, 0.75, 0.8]
    assert trainer.folders[0] == left
    assert notes[:2] == ["1 of 3 trials are there already", "trial 2 was interrupted and goes on"]


def test_what_a_trial_left_that_had_ended_is_swept(tmp_path):
    search(tmp_path / "s", Trainer(0.7), 1)
    (tmp_path / "s" / "trials" / "0001").mkdir(parents=True)
    trainer = Trainer(0.8)
    search(tmp_path / "s", trainer, 2)
    assert not (tmp_path / "s" / "trials").exists()


def test_more_trials_go_on_and_fewer_are_the_first_ones(tmp_path):
    three, _ = search(tmp_path / "s", Trainer(0.7, 0.8, 0.9), 3)
    assert search(tmp_path / "s", Trainer(), 2)[0] == three[:2]
    five, _ = search(tmp_path / "s", Trainer(0.91, 0.92), 5)
    assert five[:3] == three
    assert len(five) == 5
