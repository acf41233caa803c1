"""From feedback to a proposal through the command line: taken in, asked for, written out, learnt from, killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from danlu.core.workspace import Workspace
from forking import forking
from made_feedback import asked, champion, feedback_of, fresh, tell
from sudden_death import danlu_until_killed

QUICK = ["evaluate.bootstrap=100", "evaluate.permutations=1000"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with a champion, 300 requests of it and nothing said about them; and the truth of each."""
    folder = tmp_path_factory.mktemp("improve")
    train = {"epochs": 6, "learning_rate": 0.01}
    workspace, model = champion(folder, train=train)
    rows = fresh(300)
    ids = asked(workspace, model.digest, [(text, {"label": "good", "probability": 0.6}) for text, _ in rows])
    return folder / "workspace", list(zip(ids, rows, strict=True))


@pytest.fixture
def rows(made, danlu):
    """The same in the workspace of this test."""
    shutil.copytree(made[0], danlu.workspace)
    return made[1]


def lines(records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_a_file_comes_in_whole_and_once_or_not_at_all(danlu, rows, tmp_path):
    good = [{"request": request, "label": label} for request, (_, label) in rows[:5]]
    bad = tmp_path / "bad.jsonl"
    bad.write_text(lines([*good, {"request": "r", "lable": "good"}]), encoding="utf-8")
    before = danlu.files()
    said = danlu("feedback", "tiny", f"import={bad}")
    assert said.code == 1
    assert "unknown key 'lable'" in said.err
    assert f"{bad}:6" in said.err
    assert "did you mean 'label'?" in said.err
    kept = [name for name in danlu.files() if name not in before]
    assert not [name for name in kept if name.startswith("events")]
    path = tmp_path / "good.jsonl"
    path.write_text(lines(good), encoding="utf-8")
    assert danlu("feedback", "tiny", f"import={path}", "--json").json == {"name": "tiny", "new": 5, "known": 0}
    assert danlu("feedback", "tiny", f"import={path}", "--json").json == {"name": "tiny", "new": 0, "known": 5}
    found = danlu("feedback", "tiny", "--json").json
    n_good = sum(label == "good" for _, (_, label) in rows[:5])
    assert (found["n"], found["right"], found["wrong"], found["corrected"]) == (5, n_good, 5 - n_good, 5 - n_good)
    assert found["by_source"] == {"import:good.jsonl": 5}
    path.write_text(lines([{"id": "x", "request": rows[0][0], "correct": True}]), encoding="utf-8")
    assert danlu("feedback", "tiny", f"import={path}").code == 0
    path.write_text(lines([{"id": "x", "request": rows[0][0], "correct": False}]), encoding="utf-8")
    said = danlu("feedback", "tiny", f"import={path}")
    assert said.code == 1
    assert "'x' was used before, for something else" in said.err
    # What the server wrote down has fewer keys, and is the same record all the same.
    tell(Workspace(danlu.workspace), [feedback_of(rows[9][0], "user:a", correct=False)])
    for kind in ("jsonl", "csv"):
        file = tmp_path / f"out.{kind}"
        # Six, not seven: what one source says of one answer takes the place of what it said before.
        assert danlu("feedback", "tiny", f"export={file}", f"format={kind}", "--json").json["n"] == 6
        assert danlu("feedback", "tiny", f"import={file}", "--json").json == {"name": "tiny", "new": 0, "known": 6}


@pytest.mark.parametrize("by", ["margin", "core-set", "random"])
def test_what_is_worth_a_label_is_asked_labelled_elsewhere_and_taken_in(danlu, rows, tmp_path, by):
    workspace = Workspace(danlu.workspace)
    tell(workspace, [feedback_of(request, "user:a", label=label) for request, (_, label) in rows[:40]])
    tell(workspace, [feedback_of(request, "user:b", correct=False) for request, _ in rows[40:50]])
    repeats = [(f" {text}", {"label": "good"}) for _, (text, _) in rows[60:70]]
    asked(workspace, "e" * 64, repeats)  # the same texts, but for white space
    found = danlu("feedback", "tiny", "ask=20", f"by={by}", "--json").json
    assert found["n_candidates"] == 260
    assert (found["n_left_out"]["labelled"], found["n_left_out"]["repeated"]) == (40, 10)
    questions = found["questions"]
    assert len({(each["request"], each["index"]) for each in questions}) == 20
    assert all(each["why"]["by"] == by for each in questions)
    values = [each["why"]["value"] for each in questions]
    assert values == sorted(values, reverse=by == "core-set")
    again = danlu("feedback", "tiny", "ask=20", f"by={by}", "--json").json
    assert again["n_left_out"]["asked"] == 20
    assert not {each["request"] for each in again["questions"]} & {each["request"] for each in questions}
    tasks = tmp_path / "tasks.json"
    said = danlu("feedback", "tiny", f"export={tasks}", "format=label-studio")
    assert '<Choice value="good"/>' in said.out
    exported = json.loads(tasks.read_text(encoding="utf-8"))
    by_users = {request for request, _ in rows[:50]}  # what users said is to be checked, too
    assert len(exported) == len(by_users | {each["request"] for each in [*questions, *again["questions"]]})
    truth = {text: label for _, (text, label) in rows}
    for task in exported[:20]:
        choice = {"type": "choices", "value": {"choices": [truth[task["data"]["text"]]]}}
        task["annotations"] = [{"completed_by": 3, "result": [choice]}]
    for task in exported[20:]:
        task["annotations"] = []
    tasks.write_text(json.dumps(exported), encoding="utf-8")
    assert danlu("feedback", "tiny", f"import={tasks}", "--json").json["new"] == 20
    summed = danlu("feedback", "tiny", "--json").json
    assert summed["open_questions"] == 20
    assert summed["by_source"]["labeller:3"] == 20


def test_wrong_use_is_told(danlu, rows):
    assert rows
    for words, message in (
        (["import=a.jsonl", "export=b.csv"], "two commands"),
        (["format=csv"], "goes with export"),
        (["by=margin"], "goes with ask"),
        (["seed=1"], "goes with ask"),
        (["ask=5", "seed=1"], "by=margin draws nothing"),
        (["ask=0"], "greater than or equal to 1"),
        (["ask=5", "by=luck"], "margin"),
        (["imprt=a.jsonl"], "did you mean 'import'"),
        (["import=none.jsonl"], "cannot read"),
    ):
        said = danlu("feedback", "tiny", *words)
        assert said.code == 2, said
        assert message in said.err
    assert danlu("feedback", "nobody").code == 2
    said = danlu("feedback", "tiny@champion")
    assert (said.code, "belongs to a name" in said.err) == (2, True)


@pytest.mark.timeout(300)
def test_the_gate_decides_what_becomes_the_challenger(danlu, rows):
    workspace = Workspace(danlu.workspace)
    said = danlu("improve", "tiny")
    assert (said.code, "there is no feedback" in said.err) == (3, True)
    tell(workspace, [feedback_of(request, "labeller:ann", label=label) for request, (_, label) in rows])
    said = danlu("improve", "tiny", "held_out=0.5", *QUICK, "--json")
    assert said.code == 0, said
    facts = said.json
    assert facts["passed"]
    challenger = danlu("log", "--json").json
    assert any("tiny@challenger" in model["aliases"] for model in challenger["models"])
    assert Path(facts["page"]).is_file()
    before = len(workspace.ledger.entries())
    # A model that has learnt next to nothing is refused, with the same exit code as any gate's.
    said = danlu("improve", "tiny", "held_out=0.5", "train.max_steps=1", "train.learning_rate=1e-9", *QUICK, "--json")
    assert said.code == 3
    assert not said.json["passed"]
    assert said.json["gate"]["difference"] < 0
    assert len(workspace.ledger.entries()) == before


MOMENTS = [
    ("before", "danlu.train.checkpoint:Run.save", 1),  # the data are made, and nothing is trained
    ("after", "danlu.train.checkpoint:Run.save", 2),
    ("before", "danlu.core.ledger:Ledger.set_alias", 1),  # all is judged, and nothing proposed
    ("after", "danlu.core.ledger:Ledger.set_alias", 1),  # proposed, and not told
]


@pytest.mark.timeout(600)
def test_an_improvement_that_is_killed_goes_on(danlu, rows, tmp_path):
    workspace = Workspace(danlu.workspace)
    tell(workspace, [feedback_of(request, "labeller:ann", label=label) for request, (_, label) in rows])
    words = ["improve", "tiny", "held_out=0.5", *QUICK, "-w", str(danlu.workspace)]
    context = forking()
    log = tmp_path / "log.txt"
    for moment in MOMENTS:
        process = context.Process(target=danlu_until_killed, args=(words, log, moment))
        process.start()
        process.join()
        assert process.exitcode == -9, (moment, log.read_text())
        proposed = any(entry.alias == "challenger" for entry in workspace.ledger.entries())
        assert proposed == (moment == MOMENTS[-1])
    said = danlu(*words[:-2], "--json")
    assert said.code == 0, said
    assert len(list(workspace.all("model"))) == 2
    assert len(list(workspace.all("proposal"))) == 1
    assert sum(entry.alias == "challenger" for entry in workspace.ledger.entries()) == 1
    assert not list(workspace.runs.glob("tiny-improve.json"))
