"""Opening what a run committed to, and training parts of it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from danlu.core.artifact import Artifact
from danlu.core.chain import Chain, RunChain
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import digest_of, sha256_file, write_json
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.model.module import load_module
from danlu.model.weights import weights_root
from danlu.train.order import reopened_order, run_order
from danlu.train.prepare import Sources, Start
from danlu.train.replay import drawn_segments, reopened, replay
from danlu.train.stage import train_model
from small import SCORE, Listener, made_up, make_dataset, spec_of

IDENTITY = ("format", "kind", "name", "key", "config", "parents", "commitments", "files")


@dataclass(frozen=True)
class World:
    """A model that was trained for four epochs after pre-training, of which the last two checkpoints were kept."""

    folder: Path
    workspace: Workspace
    dataset: Artifact
    model: Artifact

    @property
    def run(self) -> Path:
        """The run's folder."""
        (found,) = self.workspace.runs.glob("tiny-model-*")
        return found

    @property
    def pretrained(self) -> Artifact:
        """What it started from."""
        (found,) = self.workspace.all("pretrained")
        return found

    def replayed(self, model: Artifact | None = None, n: int = 9) -> list[Any]:
        """Segments trained again; all of them."""
        return replay(self.workspace, model or self.model, n, SCORE, Silent())

    def forged(
        self,
        chain: Callable[[dict[str, Any]], dict[str, Any]] = lambda entry: entry,
        training: dict[str, Any] | None = None,
        **manifest: Any,
    ) -> Artifact:
        """A copy that says something else, its hashes all made to fit.

        Args:
            chain: What becomes of every line of the chain.
            training: What is laid over ``training.json``,
            manifest: and over the manifest.
        """
        target = self.workspace.artifacts / "model" / "tiny-forged"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.model.path, target)
        (target / "chain.jsonl").unlink()
        for entry in RunChain.read(self.model.path / "chain.jsonl").entries:
            plain = {key: value for key, value in entry.items() if key not in ("seq", "prev", "hash")}
            Chain(target / "chain.jsonl").append(chain(json.loads(json.dumps(plain))))
        write_json(target / "training.json", self.model.json("training.json") | (training or {}))
        made = {**self.model.manifest, **manifest}
        made["files"] = {
            name: {"sha256": sha256_file(target / name), "bytes": (target / name).stat().st_size}
            for name in made["files"]
        }
        made["digest"] = digest_of({name: made[name] for name in IDENTITY})
        write_json(target / "manifest.json", made)
        found = Artifact.open(target)
        found.verify()
        return found


def trained(folder: Path, sources: Sources = Sources(), **sections: Any) -> World:  # noqa: B008 - it is frozen
    workspace, dataset = make_dataset(folder, made_up(100))
    spec = spec_of(folder, **sections)
    return World(folder, workspace, dataset, train_model(workspace, "tiny", dataset, spec, sources, SCORE, Silent()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    train = {"epochs": 4, "learning_rate": 3e-3, "keep_checkpoints": True, "ema_decay": 0.9, "patience": 9}
    return trained(tmp_path_factory.mktemp("world"), pretrain={"epochs": 1}, train=train)


@pytest.fixture
def no_seeds(world: World) -> Any:
    """The run's folder is elsewhere."""
    aside = world.folder / "aside"
    world.workspace.runs.rename(aside)
    yield aside
    shutil.rmtree(world.workspace.runs, ignore_errors=True)
    aside.rename(world.workspace.runs)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


# What is written down


def test_the_chain_tells_what_the_run_did(world: World) -> None:
    chain = RunChain.read(world.model.path / "chain.jsonl")
    metrics = (world.model.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    points = [json.loads(line) for line in metrics]
    valid = {point["step"]: point["valid"] for point in points if "valid" in point}
    losses = {point["step"]: point["loss"] for point in points if "loss" in point}  # every step has a line here
    assert {entry["step"]: entry["valid"] for entry in chain.checkpoints} == valid
    before = 0
    for entry in chain.checkpoints:
        steps = range(before + 1, entry["step"] + 1)
        assert entry["loss"] == pytest.approx(np.mean([losses[step] for step in steps]), rel=1e-12)
        before = entry["step"]
    facts = world.model.json("training.json")
    assert (chain.end["step"], chain.end["kept"]) == (facts["step"], facts["best_step"])
    assert chain.start["n_steps"] == facts["n_steps"]
    assert chain.checkpoints[-1]["metrics"] == sha256_file(world.model.path / "metrics.jsonl")
    assert chain.start["commitments"] == world.model.manifest["commitments"]
    kept = chain.checkpoints[-1]
    assert all(
        sha256_file(world.run / f"checkpoints/step-{kept['step']:08d}" / f) == d for f, d in kept["files"].items()
    )
    assert {"model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"} == kept["files"].keys()


def test_the_end_of_the_chain_names_the_weights_that_the_model_has(world: World) -> None:
    for model in (world.model, world.pretrained):
        end = RunChain.read(model.path / "chain.jsonl").end
        assert end["weights"] == weights_root(load_module(model.path).state_dict())


def test_a_root_of_weights_moves_with_every_part_of_them() -> None:
    one = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros((), dtype=torch.bfloat16)}
    others = [
        {"c": one["a"], "b": one["b"]},
        {**one, "a": one["a"].reshape(3, 2)},
        {**one, "a": one["a"].double()},
        {**one, "b": one["b"].half()},
        {**one, "a": one["a"] + torch.eye(2, 3) * 1e-7},
        {"a": one["a"]},
    ]
    assert weights_root(dict(reversed(one.items()))) == weights_root(one)
    assert weights_root({**one, "a": one["a"].T.contiguous().T}) == weights_root(one)
    assert len({weights_root(each) for each in [one, *others]}) == 7


def test_checkpoints_stay_where_they_are_asked_for_and_are_no_interrupted_run(tmp_path: Path) -> None:
    world, told = trained(tmp_path, train={"epochs": 3, "keep_checkpoints": True}), Listener()
    steps = [entry["step"] for entry in RunChain.read(world.model.path / "chain.jsonl").checkpoints]
    kept = {path.name for path in (world.run / "checkpoints").glob("step-*")}
    assert {f"step-{step:08d}" for step in steps[-2:]} <= kept
    spec = spec_of(tmp_path, train={"epochs": 1})
    train_model(world.workspace, "tiny", world.dataset, spec, Sources(), SCORE, told)
    assert not any("interrupted" in note for note in told.notes)
    assert len(list(world.workspace.runs.glob("tiny-model-*/checkpoints"))) == 1


# What is opened


def test_the_beginning_follows_from_the_seeds(world: World) -> None:
    for model in (world.model, world.pretrained):
        found = reopened(world.workspace, model)
        assert not isinstance(found, str)
        assert (found.commitments, found.weights, found.order, found.elsewhere) == (True, True, True, ())
        order = reopened_order(world.workspace, model)
        assert not isinstance(order, str)
        chain = RunChain.read(model.path / "chain.jsonl")
        assert order.root == chain.start["order_root"] == run_order(found.prepared).root
        assert order.n_taken == chain.end["kept"]
        assert len(order.batches) == chain.start["n_steps"]


@pytest.mark.parametrize("field", ["commitments", "weights", "order_root", "n_steps"])
def test_each_commitment_is_judged_by_itself(world: World, field: str) -> None:
    other = {"commitments": Seeds.new("1").commitments(), "n_steps": 99}.get(field, "0" * 64)
    model = world.forged(lambda entry: {**entry, field: other} if entry["event"] == "begun" else entry)
    found = reopened(world.workspace, model)
    assert not isinstance(found, str)
    named = {"n_steps": "order", "order_root": "order"}.get(field, field)
    assert {name for name in ("commitments", "weights", "order") if not getattr(found, name)} == {named}
    order = reopened_order(world.workspace, model)
    assert isinstance(order, str) == (named != "weights")
    if named != "weights":
        assert ("seeds" if named == "commitments" else "order") in str(order)
    said = {"commitments": "seeds", "weights": "initial weights", "order": "order of the records"}[named]
    with pytest.raises(CorruptError, match=f"not what the run committed to: {said}\n"):
        world.replayed(model, 1)


def test_another_seed_is_found_out(world: World, tmp_path: Path) -> None:
    Seeds.new("2").save(tmp_path / "seeds.json")
    found = reopened(world.workspace, world.model, tmp_path / "seeds.json")
    assert not isinstance(found, str)
    assert (found.commitments, found.order) == (False, False)
    with pytest.raises(CorruptError, match=r"not what the run committed to: seeds, .*order of the records"):
        replay(world.workspace, world.model, 1, SCORE, Silent(), tmp_path / "seeds.json")


def test_seeds_may_be_given_as_a_file_where_the_run_is_gone(world: World, no_seeds: Path) -> None:
    assert reopened(world.workspace, world.model) == "the seeds of its run are not here"
    assert reopened_order(world.workspace, world.model) == "the seeds of its run are not here"
    with pytest.raises(UsageError, match="no part of the run can be done again: the seeds of its run are not here"):
        world.replayed()
    (seeds,) = no_seeds.glob("tiny-model-*/seeds.json")
    found = reopened(world.workspace, world.model, seeds)
    assert not isinstance(found, str)
    assert found.commitments


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ({"dataset": "d" * 64}, "the dataset dddddddddddd that it was trained on is not in this workspace"),
        ({"pretrained": "e" * 64}, "the checkpoint eeeeeeeeeeee that it started from is not here"),
    ],
)
def test_what_is_not_at_hand_is_said(world: World, parents: dict[str, str], said: str) -> None:
    model = world.forged(parents={**world.model.manifest["parents"], **parents})
    assert reopened(world.workspace, model) == said
    assert reopened_order(world.workspace, model) == said


# What is trained again


def test_every_segment_comes_out_bit_for_bit_and_the_run_is_left_alone(world: World) -> None:
    before, told = tree(world.run), Listener()
    for model in (world.model, world.pretrained):
        chain = RunChain.read(model.path / "chain.jsonl")
        found = replay(world.workspace, model, 9, SCORE, told)
        ends = [entry["step"] for entry in chain.checkpoints]
        assert [(each.begin, each.end) for each in found] == list(zip([0, *ends], ends, strict=False))
        assert all(each.identical for each in found)
        assert [each.line for each in found] == list(range(2, len(ends) + 2))
        assert sum(each.kept is True for each in found) == 1
        assert sum(each.kept is None for each in found) == len(ends) - 1
    assert tree(world.run) == before
    assert not list(world.workspace.runs.glob(".scratch-*"))


def test_a_segment_begins_at_the_checkpoint_that_was_kept_or_at_the_start(world: World) -> None:
    ends = [entry["step"] for entry in RunChain.read(world.model.path / "chain.jsonl").checkpoints]
    last = world.replayed()[-1]
    assert last.restored == last.begin == ends[-2]
    (world.run / "checkpoints").rename(world.run / "elsewhere")
    try:
        told = Listener()
        found = replay(world.workspace, world.model, 9, SCORE, told)
    finally:
        (world.run / "elsewhere").rename(world.run / "checkpoints")
    assert all(each.identical and each.restored == 0 for each in found)
    assert any(f"{ends[-1]} steps are to be trained for that" in note for note in told.notes)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_one_changed_digest_is_found_out_and_named(world: World, name: str) -> None:
    second = RunChain.read(world.model.path / "chain.jsonl").checkpoints[1]["step"]

    def change(entry: dict[str, Any]) -> dict[str, Any]:
        if entry["step"] == second:
            entry["files"][name] = "0" * 64
        return entry

    found = world.replayed(world.forged(change))
    assert [each.end for each in found if not each.identical] == [second]
    (wrong,) = [each for each in found if not each.identical]
    assert [file for file, same in wrong.files.items() if not same] == [name]
    assert wrong.told


@pytest.mark.parametrize(("field", "value"), [("loss", 0.1), ("valid", {"score": 1.0}), ("metrics", "0" * 64)])
def test_a_figure_that_was_made_up_is_found_out(world: World, field: str, value: Any) -> None:
    first = RunChain.read(world.model.path / "chain.jsonl").checkpoints[0]["step"]
    found = world.replayed(world.forged(lambda entry: {**entry, field: value} if entry["step"] == first else entry))
    assert [each.end for each in found if not each.told] == [first]


def test_other_kept_weights_are_found_out(world: World) -> None:
    model = world.forged(lambda entry: {**entry, "weights": "0" * 64} if entry["event"] == "ended" else entry)
    kept = RunChain.read(model.path / "chain.jsonl").end["kept"]
    assert [each.end for each in world.replayed(model) if each.kept is False] == [kept]


def test_other_data_of_the_same_shape_are_found_out(tmp_path: Path) -> None:
    world = trained(tmp_path, train={"epochs": 2})
    (tmp_path / "other").mkdir()
    flipped = [(text, "bad" if label == "good" else "good") for text, label in made_up(100)]
    _, other = make_dataset(tmp_path / "other", flipped)
    shutil.copytree(other.path, world.dataset.path.parent / other.path.name)
    model = world.forged(parents={"dataset": other.digest})
    found = reopened(world.workspace, model)
    assert not isinstance(found, str)
    assert (found.commitments, found.weights, found.order) == (True, True, True)  # the texts are the same
    assert not any(each.identical for each in world.replayed(model))
    assert all(each.identical for each in world.replayed())


def test_a_checkpoint_that_was_kept_and_changed_is_left_aside(world: World) -> None:
    ends = [entry["step"] for entry in RunChain.read(world.model.path / "chain.jsonl").checkpoints]
    path = world.run / f"checkpoints/step-{ends[-2]:08d}" / "model.safetensors"
    content, told = path.read_bytes(), Listener()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        found = replay(world.workspace, world.model, 9, SCORE, told)
    finally:
        path.write_bytes(content)
    assert f"the checkpoint of step {ends[-2]} is not what the chain says; it is left aside" in told.notes
    assert found[-1].identical
    assert found[-1].restored < found[-1].begin


def test_adapters_on_a_model_of_ours_come_out_again(world: World, tmp_path: Path) -> None:
    start = Start(world.model.path, world.model.digest)
    train = {"epochs": 2, "adapt": {"mode": "lora", "lora": {"rank": 2}}}
    made = trained(tmp_path, Sources(start), model={"from": str(world.model.path)}, train=train)
    asked = "the checkpoint " + world.model.digest[:12]
    assert str(reopened(made.workspace, made.model)).startswith(asked)
    found = reopened(made.workspace, made.model, start=start)
    assert not isinstance(found, str)
    assert (found.commitments, found.weights, found.order) == (True, True, True)
    assert all(each.identical for each in replay(made.workspace, made.model, 2, SCORE, Silent(), start=start))


# What cannot be


def test_segments_are_drawn_by_the_last_hash_alone() -> None:
    head = "ab" * 32
    assert drawn_segments(head, 3, 10) == drawn_segments(head, 3, 10)
    assert drawn_segments(head, 99, 4) == [0, 1, 2, 3]
    assert set(drawn_segments(head, 2, 10)) < set(drawn_segments(head, 3, 10))
    counts = np.zeros(5)
    for number in range(1000):
        (drawn,) = drawn_segments(digest_of(number), 1, 5)
        counts[drawn] += 1
    assert counts.min() > 150  # 200 are expected, with a standard deviation of 13
    assert drawn_segments(head, 3, 10) == [0, 2, 4]


def test_a_number_that_is_none(world: World) -> None:
    with pytest.raises(UsageError, match="0 segments"):
        world.replayed(n=0)


MACHINE: dict[str, Any] = {"torch": "0.1", "numpy": "0.1", "device": "cpu", "processor": "p", "instructions": "i"}


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        ([{**MACHINE, "n_threads": 1, "n_processes": 2}], "several processes trained together"),
        ([{**MACHINE, "n_threads": 1, "n_processes": 1, "device": "H100"}], "a GPU does not add in the same order"),
        ([], "it does not say on what machine it ran"),
    ],
)
def test_what_is_not_exact_is_not_compared(world: World, machines: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UsageError, match=f"no part of the run can be done again: {said}"):
        world.replayed(world.forged(training={"machines": machines}))


def test_a_run_that_went_on_otherwise_is_not_compared(world: World) -> None:
    model = world.forged(config={**world.model.config, "changes": [{"step": 1, "what": {}}]})
    with pytest.raises(UsageError, match="went on with another recipe half way"):
        world.replayed(model)


def test_another_machine_is_told_of(world: World) -> None:
    (here,) = world.model.json("training.json")["machines"]
    model = world.forged(training={"machines": [{**here, "torch": "0.1", "n_threads": 1}]})
    (found,) = world.replayed(model, 1)
    assert found.identical
    assert found.elsewhere == (f"torch 0.1, here {torch.__version__}",)


def test_a_model_that_was_not_trained_in_steps(world: World) -> None:
    files = {name: about for name, about in world.model.manifest["files"].items() if name != "chain.jsonl"}
    model = Artifact(world.model.path, {**world.model.manifest, "files": files})
    assert str(reopened(world.workspace, model)).startswith("it has no chain.jsonl")
