"""A run that was interrupted, and a recipe that has changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from danlu.core.artifact import Artifact
from danlu.core.chain import RunChain
from danlu.core.errors import BusyError, UsageError
from danlu.core.files import lock
from danlu.core.workspace import Workspace
from danlu.train.order import reopened_order
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from small import SCORE, Listener, make_dataset, spec_of

TRAIN = {"epochs": 4, "batch_tokens": 256, "checkpoint_seconds": 0}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Workspace, Artifact]:
    return tmp_path, *make_dataset(tmp_path)


def train(made: tuple[Path, Workspace, Artifact], told: Listener, *, cut: bool = False, **sections: Any) -> Artifact:
    folder, workspace, dataset = made
    seen = []

    def score(*given: Any) -> dict[str, float]:
        seen.append(given)
        if cut and len(seen) == 2:
            raise KeyboardInterrupt
        return SCORE(*given)

    spec = spec_of(folder, "bert", **{"train": TRAIN, **sections})
    return train_model(workspace, "tiny", dataset, spec, Sources(), score, told)


def interrupt(made: tuple[Path, Workspace, Artifact]) -> str:
    """Begin a run and stop it at its second evaluation; the name of its folder."""
    with pytest.raises(KeyboardInterrupt):
        train(made, Listener(), cut=True)
    (folder,) = made[1].runs.iterdir()
    return folder.name


def test_a_changed_recipe_begins_anew_and_says_what_differs(made: Any) -> None:
    name, told = interrupt(made), Listener()
    train(made, told, train={**TRAIN, "learning_rate": 0.005})
    (said,) = [note for note in told.notes if "interrupted" in note]
    assert said.startswith(f"{name}, interrupted at step ")
    assert "differs in train.learning_rate 0.001 -> 0.005; this run begins anew" in said
    assert "train.resume=true goes on with that one" in told.notes
    assert not any(note.startswith("resumed") for note in told.notes)


def test_resume_goes_on_and_the_model_says_what_was_changed(made: Any) -> None:
    name, told = interrupt(made), Listener()
    changed = {**TRAIN, "learning_rate": 0.005, "epochs": 6, "resume": True}
    model = train(made, told, train=changed)
    step = model.json("training.json")["changes"][0]["step"]
    assert step > 0
    assert told.notes[0].startswith(f"going on with {name} at step {step}; changed: ")
    assert f"resumed at step {step} of {model.json('training.json')['n_steps']}" in told.notes
    what = {"train.epochs": [4, 6], "train.learning_rate": [0.001, 0.005]}
    assert model.json("training.json")["changes"] == [{"step": step, "what": what}]
    assert model.manifest["config"]["changes"] == [{"step": step, "what": what}]
    chain = RunChain.read(model.path / "chain.jsonl")
    (changed_there,) = [entry for entry in chain.entries if entry["event"] == "changed"]
    assert (changed_there["step"], chain.planned) == (step, changed_there)
    order = reopened_order(made[1], model)
    assert not isinstance(order, str)
    assert (order.root, len(order.batches)) == (chain.planned["order_root"], chain.planned["n_steps"])
    anew = train(made, Listener(), train={**changed, "resume": False})
    assert anew.digest != model.digest  # what the recipe gives from its first step on is another model


def test_a_resumed_run_that_is_interrupted_again_keeps_its_history(made: Any) -> None:
    interrupt(made)
    changed = {**TRAIN, "learning_rate": 0.005, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        train(made, Listener(), cut=True, train=changed)
    model = train(made, told := Listener(), train=changed)
    assert "changed: nothing" in told.notes[0]
    assert len(model.json("training.json")["changes"]) == 1
    changes = [path for path in made[1].runs.iterdir() if (path / "checkpoints").exists()]
    assert not changes


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"model": {"d_model": 32}}, "model.d_model 16 -> 32"),
        ({"train": {**TRAIN, "batch_tokens": 128}}, "train.batch_tokens 256 -> 128"),
        ({"seed": 2}, "seed 1 -> 2"),
        ({"tokenizer": {"vocab_size": 300}}, "tokenizer.vocab_size 340 -> 300"),
    ],
)
def test_what_cannot_go_on_is_refused_and_nothing_is_touched(made: Any, sections: Any, named: str) -> None:
    name = interrupt(made)
    sections = {**sections, "train": {**sections.get("train", TRAIN), "resume": True}}
    with pytest.raises(UsageError, match="cannot go on with another") as found:
        train(made, Listener(), **sections)
    assert named in str(found.value)
    assert [path.name for path in made[1].runs.iterdir()] == [name]
    train(made, told := Listener())
    assert any(note.startswith("resumed at step") for note in told.notes)


def test_a_shorter_recipe_than_what_was_done_is_refused(made: Any) -> None:
    interrupt(made)
    with pytest.raises(UsageError, match=r"the run is at step \d+, and would now end at step"):
        train(made, Listener(), train={**TRAIN, "max_steps": 1, "resume": True})


def test_a_run_at_work_is_left_alone(made: Any) -> None:
    name = interrupt(made)
    with lock(made[1].runs / name / "lock", holder="it"), pytest.raises(BusyError):
        train(made, Listener(), train={**TRAIN, "patience": 9, "resume": True})


def test_how_a_run_is_carried_out_may_change_at_any_time(made: Any) -> None:
    interrupt(made)
    train(made, told := Listener(), train={**TRAIN, "checkpoint_seconds": 60, "keep_last": 3})
    assert any(note.startswith("resumed at step") for note in told.notes)
