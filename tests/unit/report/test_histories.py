from __future__ import annotations

import json
from pathlib import Path

import pytest

from danlu.core.errors import DanluError, DataError, UsageError
from danlu.core.files import lock
from danlu.core.workspace import Workspace
from danlu.report.histories import Spent, at, find, unfinished
from made_curves import STARTED, config_of, make_model, make_run, metrics, timing, write_lines


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path / "workspace")


def test_a_model_is_found_by_every_name_that_it_has(workspace: Workspace) -> None:
    model = make_model(workspace, "reviews")
    for target, label in (
        ("reviews", "reviews@latest"),
        ("reviews@latest", "reviews@latest"),
        (str(model.path), model.path.name),
        (model.path.name, model.path.name),
    ):
        found = find(workspace, target)
        assert (found.path, found.label, found.state, found.step) == (model.path, label, "finished", 100)
        assert found.best is not None
        assert found.best[0] == 90
        assert found.cost == (50.0, 10_000)
    champion = make_model(workspace, "reviews", alias="champion", config=config_of("text-classification", epochs=3))
    assert find(workspace, "reviews").path == champion.path


def test_a_run_is_found_by_the_beginning_of_its_folder(workspace: Workspace) -> None:
    folder = make_run(workspace, "reviews")
    for target in ("reviews", "reviews-model", folder.name, str(folder)):
        found = find(workspace, target)
        assert (found.path, found.state, found.step) == (folder, "stopped", 30)
        assert found.size == {"n_parameters": 12_345, "n_steps": 100}
        assert found.label == (folder.name if target == str(folder) else target)
    make_run(workspace, "reviews-2")
    with pytest.raises(UsageError, match="2 runs begin with 'reviews'") as error:
        find(workspace, "reviews")
    assert folder.name in str(error.value.advice)
    model = make_model(workspace, "reviews")
    assert find(workspace, "reviews").path == model.path, "a name that was given goes before the beginning of one"


def test_a_run_is_under_way_while_a_process_holds_it(workspace: Workspace) -> None:
    folder = make_run(workspace, "a")
    with lock(folder / "lock", holder="the run"):
        assert find(workspace, "a").state == "under way"
    assert find(workspace, "a").state == "stopped"


def test_a_run_that_made_its_model_is_finished_and_no_longer_listed(workspace: Workspace) -> None:
    folder = make_run(workspace, "a")
    make_run(workspace, "b")
    assert [run.path.name[0] for run in unfinished(workspace)] == ["a", "b"]
    key = json.loads((folder / "run.json").read_text())["key"]
    with workspace.create("model", "a", key=key, config={}, parents={}) as draft:
        (draft.folder / "training.json").write_text(json.dumps({"seconds": 9.0, "n_tokens": 90}))
    assert [run.path.name[0] for run in unfinished(workspace)] == ["b"]
    found = find(workspace, folder.name)
    assert (found.state, found.cost) == ("finished", (9.0, 90))


@pytest.mark.parametrize(
    ("target", "what", "advice"),
    [
        ("revews", "no model or run is called 'revews'", "did you mean 'reviews'?"),
        ("reviews@lates", "reviews has no alias 'lates'", "did you mean 'latest'?"),
        ("other@latest", "no model is named 'other'", "known here: reviews"),
        ("x" * 5000, "no model or run is called", "known here:"),
        ("a/b", "no model or run is called 'a/b'", "known here:"),
    ],
)
def test_what_is_not_there(workspace: Workspace, target: str, what: str, advice: str) -> None:
    make_model(workspace, "reviews")
    make_run(workspace, "poetry")
    with pytest.raises(UsageError) as error:
        find(workspace, target)
    assert what in error.value.what
    assert advice in str(error.value.advice)


def test_in_an_empty_workspace(workspace: Workspace) -> None:
    assert unfinished(workspace) == []
    with pytest.raises(UsageError) as error:
        find(workspace, "x")
    assert "danlu train RECIPE" in str(error.value.advice)


def test_what_has_no_curve_says_what_has_one(workspace: Workspace) -> None:
    config = config_of("text-classification")
    member = make_model(workspace, "a-bert")
    make_model(workspace, "a-tfidf-lr", config=config | {"family": "tfidf-lr"}, metrics=[], timing=[])
    ensemble = {"family": "ensemble", "members": ["bert"]}
    make_model(workspace, "a", config=ensemble, parents={"bert": member.digest}, metrics=[], timing=[])
    make_run(workspace, "b", metrics=[], timing=[])
    for target, what, advice in (
        ("a", "a is an ensemble", member.path.name),
        ("a-tfidf-lr", "a-tfidf-lr was not trained step by step", "danlu log"),
        ("b", "b has no report yet", "run the same command again"),
    ):
        with pytest.raises(DataError) as error:
            find(workspace, target)
        assert what in error.value.what
        assert advice in str(error.value.advice)
    dataset = make_model(workspace, "c", kind="dataset", alias="")
    workspace.ledger.set_alias("c", "latest", dataset, reason="made up")
    with pytest.raises(UsageError, match="c@latest is a dataset, not a model"):
        find(workspace, "c")


def test_a_damaged_model_is_refused(workspace: Workspace) -> None:
    model = make_model(workspace, "a")
    (model.path / "metrics.jsonl").write_text("")
    with pytest.raises(DanluError, match=r"metrics\.jsonl was changed"):
        find(workspace, "a")


def spent_of(workspace: Workspace, lines: list[dict[str, object]]) -> list[tuple[float, float, float]]:
    folder = make_run(workspace, f"r{len(list(workspace.runs.glob('*')))}", timing=lines)
    return [(each.step, each.seconds, each.n_tokens) for each in find(workspace, folder.name).spent]


def test_steps_that_were_done_again_cost_once(workspace: Workspace) -> None:
    once = [(step, 0.5 * step, 100 * step) for step in range(21)]
    assert spent_of(workspace, timing("a", 0, 20)) == once
    # Killed at 12 and taken up at 8; killed at 15 and taken up at 15; on another machine, at half the pace.
    lines = [*timing("a", 0, 12), *timing("b", 8, 15), *timing("c", 15, 20, seconds=1.0)]
    expected = [each if each[0] <= 15 else (each[0], 7.5 + (each[0] - 15), each[2]) for each in once]
    assert spent_of(workspace, lines) == expected
    # Before a process wrote down where it took up the run: its first line is a step or two later.
    older = [*timing("a", 0, 12)[1:], *timing("b", 8, 20)[2:]]
    assert spent_of(workspace, older) == once[1:]


def test_the_cost_counts_every_step_that_was_done(workspace: Workspace) -> None:
    folder = make_run(workspace, "a", timing=[*timing("a", 0, 12), *timing("b", 8, 20)])
    assert find(workspace, folder.name).cost == (0.5 * 24, 100 * 24)
    pretraining = {"training": {"seconds": 60.0, "pretraining": {"seconds": 10.0}}}
    make_model(workspace, "b", **pretraining)
    assert find(workspace, "b").cost == (50.0, 10_000)


def test_between_known_steps_the_cost_is_in_proportion() -> None:
    spent = [Spent(0, 0.0, 0.0), Spent(10, 5.0, 1000.0), Spent(20, 25.0, 2000.0)]
    assert at(spent, 4) == Spent(4, 2.0, 400.0)
    assert at(spent, 10) == spent[1]
    assert at(spent, 15) == Spent(15, 15.0, 1500.0)
    assert at(spent, 99) == spent[2]
    assert at([], 5) == Spent(0, 0.0, 0.0)


def test_when_it_was_worked_on_last(workspace: Workspace) -> None:
    folder = make_run(workspace, "a")
    assert find(workspace, "a").changed == "2023-11-14T22:13:50Z"
    assert STARTED + 30 == 1_700_000_030
    write_lines(folder / "timing.jsonl", [{"process": "a", "step": 30, "seconds": 1.0, "n_tokens": 1}])
    assert find(workspace, "a").changed > "2026"  # by the files themselves


def test_a_line_that_is_being_written_is_not_read(workspace: Workspace) -> None:
    folder = make_run(workspace, "a", metrics=metrics("text-classification", 30))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "lo')
    assert find(workspace, "a").losses[-1][0] == 30
