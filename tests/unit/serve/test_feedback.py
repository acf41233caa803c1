"""Feedback on its way in: what counts, what is refused, and that nothing counts twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from danlu.core.events import EventLog
from danlu.core.index import Index
from danlu.core.workspace import Workspace
from danlu.serve.keys import make_key
from made_app import MadeApp

MODELS = {"reviews": "text-classification", "ui": "translation", "poems": "language-modelling"}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., MadeApp]]:
    """Applications over one workspace, one after the other as after a restart."""
    made: list[MadeApp] = []

    def start(models: dict[str, str] = MODELS, **values: Any) -> MadeApp:
        made.append(MadeApp(tmp_path / "workspace", models, **values))
        own = made[-1].gate.app.state.service.events
        own.path = own.path.with_name(f"serve-{len(made)}.jsonl")  # a process of its own has a file of its own
        made[-1].gate.app.state.feedback._said._own = own.path
        return made[-1]

    yield start
    for each in made:
        each.__exit__()


def predicted(app: MadeApp, *texts: str, model: str = "reviews@champion") -> str:
    return str(app.ask("/predict", {"model": model, "inputs": list(texts or ["good", "poor"])}).json["id"])


def test_feedback_is_written_with_what_it_is_about(make: Callable[..., MadeApp]) -> None:
    app = make()
    request = predicted(app)
    given = {"id": "f1", "request": request, "index": 1, "label": "good", "comment": "不错"}
    assert app.ask("/feedback", given).json == {"id": "f1", "status": "recorded"}
    (event,) = app.events("feedback")
    assert {key: event[key] for key in given} == given
    assert (event["name"], event["digest"], event["input"]) == ("reviews", f"{1:064x}", "poor")
    assert event["source"] == {"kind": "user", "id": "address:127.0.0.1"}
    assert "arm" not in event
    app.ask("/feedback", {"request": request, "rating": 0}, x_danlu_user="li")
    rated = app.events("feedback")[1]
    assert (rated["rating"], rated["index"]) == (0, 0)
    assert rated["source"] == {"kind": "user", "id": "header:li"}
    assert rated["id"].startswith("fb-")


def test_the_same_id_counts_once_even_after_a_restart(make: Callable[..., MadeApp]) -> None:
    app = make()
    request = predicted(app)
    given = {"id": "f1", "request": request, "correct": False}
    whose = {**given, "id": "f2", "source": {"kind": "user", "id": "a"}}
    for each in (given, whose):
        assert app.ask("/feedback", each).json["status"] == "recorded"
    for again in (app, make()):
        for each in (given, whose, {**given, "source": {"kind": "user", "id": "address:127.0.0.1"}}):
            assert again.ask("/feedback", each).json == {"id": each["id"], "status": "known"}
        for other in (
            {**given, "correct": True},
            {**given, "index": 1},
            {**given, "comment": "x"},
            {**given, "request": "req-x"},
            {"id": "f1", "request": request, "rating": 0},
            {**whose, "source": {"kind": "user", "id": "b"}},
        ):
            found = again.ask("/feedback", other)
            assert (found.status, found.code) == (409, "id_taken")
    assert len(app.events("feedback")) == 2


def test_an_id_that_another_process_has_written_meanwhile_is_known(make: Callable[..., MadeApp]) -> None:
    app = make()
    request = predicted(app)
    app.ask("/feedback", {"id": "f0", "request": request, "correct": True})
    other = EventLog(app.workspace.events, "feedback")
    for number in (1, 2):
        facts = {"id": f"f{number}", "request": request, "index": 0, "correct": True}
        other.write("feedback", **facts, name="reviews", source={"kind": "import", "id": "file"})
        assert app.ask("/feedback", facts).json["status"] == "known"
    with other.path.open("ab") as file:
        file.write(b'{"time": 1, "event": "feedback", "id": "f3", "requ')
    assert app.ask("/feedback", {"id": "f3", "request": request, "correct": True}).json["status"] == "recorded"


def test_requests_of_earlier_processes_are_known(make: Callable[..., MadeApp]) -> None:
    request = predicted(make())
    app = make()
    assert app.ask("/feedback", {"request": request, "index": 1, "correct": True}).json["status"] == "recorded"
    assert app.events("feedback")[0]["input"] == "poor"
    only = make({"ui": "translation"})
    assert only.ask("/feedback", {"request": request, "correct": True}).code == "model_not_found"


def test_what_is_forgotten_is_looked_up(make: Callable[..., MadeApp], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danlu.serve.feedback._RECENT_CHARS", 1200)
    app = make()
    requests = [predicted(app) for _ in range(4)]
    assert list(app.gate.app.state.feedback._recent) == requests[-2:]
    for request in requests:
        assert app.ask("/feedback", {"request": request, "correct": True}).status == 200
    assert [event["request"] for event in app.events("feedback")] == requests


REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"request": "req-unknown"}, 404, "request_not_found", "request"),
    ({"request": ""}, 400, "invalid_value", "request"),
    ({"request": "a\nb"}, 400, "invalid_value", "request"),
    ({"index": 2}, 400, "invalid_value", "index"),
    ({"index": -1}, 400, "invalid_value", "index"),
    ({"correct": None}, 400, "invalid_value", None),
    ({"label": "good"}, 400, "invalid_value", None),
    ({"correct": None, "label": "god"}, 400, "invalid_value", "label"),
    ({"correct": None, "text": "good"}, 400, "wrong_task", "text"),
    ({"correct": None, "rating": 1.1}, 400, "invalid_value", "rating"),
    ({"correct": "yes"}, 400, "invalid_value", "correct"),
    ({"correct": 1}, 400, "invalid_value", "correct"),
    ({"id": "x" * 201}, 400, "invalid_value", "id"),
    ({"id": "a\0"}, 400, "invalid_value", "id"),
    ({"source": {"kind": "import", "id": "x"}}, 400, "invalid_value", "source.kind"),
    ({"rating": None, "mood": 1}, 400, "invalid_value", "mood"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_cannot_be_true_is_refused(make: Callable[..., MadeApp], number: int) -> None:
    changes, status, code, param = REFUSED[number]
    app = make()
    found = app.ask("/feedback", {"request": predicted(app), "correct": True} | changes)
    assert (found.status, found.code, found.json["error"]["param"]) == (status, code, param)
    assert app.events("feedback") == []


def test_a_misspelt_label_is_answered_with_advice(make: Callable[..., MadeApp]) -> None:
    app = make()
    assert "did you mean 'good'?" in app.ask("/feedback", {"request": predicted(app), "label": "god"}).body.decode()


def test_translations_and_texts_are_corrected_by_texts(make: Callable[..., MadeApp]) -> None:
    app = make()
    wrote = app.ask("/v1/completions", {"model": "poems@champion", "prompt": ["a", "b"], "n": 2}).json["id"]
    for request, kept in ((predicted(app, "abc", model="ui@champion"), "abc"), (wrote, "a")):
        assert app.ask("/feedback", {"request": request, "label": "good"}).code == "wrong_task"
        assert app.ask("/feedback", {"request": request, "text": "x" * 100_001}).code == "limit_exceeded"
        assert app.ask("/feedback", {"request": request, "text": "right"}).status == 200
        assert app.events("feedback")[-1]["input"] == kept
    assert app.ask("/feedback", {"request": wrote, "index": 1, "text": "right"}).status == 200
    assert app.ask("/feedback", {"request": wrote, "index": 2, "text": "right"}).status == 400


def test_a_request_without_an_answer_cannot_be_judged(make: Callable[..., MadeApp]) -> None:
    app = make()
    ids = [
        app.ask("/v1/models").headers["x-request-id"],
        app.ask("/v1/embeddings", {"model": "reviews@champion", "input": "x"}).headers["x-request-id"],
        app.ask("/explain", {"model": "reviews@champion", "input": "x"}).json["id"],
        app.ask("/predict", {"model": "reviews@champion", "inputs": []}).headers["x-request-id"],
    ]
    for request in ids:
        assert app.ask("/feedback", {"request": request, "correct": True}).code == "request_not_found"


def test_keys_speak_of_their_own_requests_and_labellers_of_all(make: Callable[..., MadeApp]) -> None:
    app = make()
    one, kept = make_key(app.keys, "one", ["ask"])
    two, _ = make_key(app.keys, "two", ["ask"])
    labels, _ = make_key(app.keys, "labels", ["ask", "label"])
    app.headers["authorization"] = f"Bearer {one}"
    given = {"request": predicted(app), "label": "good"}
    assert app.ask("/feedback", given, authorization=f"Bearer {two}").code == "request_not_found"
    by_labeller = {**given, "source": {"kind": "labeller", "id": "wang"}}
    assert app.ask("/feedback", by_labeller).code == "scope_missing"
    assert app.ask("/feedback", given).status == 200
    assert app.events("feedback")[0]["source"] == {"kind": "user", "id": f"key:{kept.id}"}
    assert app.ask("/feedback", by_labeller, authorization=f"Bearer {labels}").status == 200
    assert make().ask("/feedback", given, authorization=f"Bearer {two}").code == "request_not_found"


def test_without_inputs_kept_feedback_has_none(make: Callable[..., MadeApp]) -> None:
    app = make(keep_inputs=False)
    request = predicted(app)
    assert app.ask("/feedback", {"request": request, "index": 1, "correct": True}).status == 200
    assert "input" not in app.events("feedback")[0]
    assert "inputs" not in app.events("request")[0]
    assert app.ask("/feedback", {"request": request, "index": 2, "correct": True}).status == 400


def test_what_cannot_be_written_is_not_acknowledged(make: Callable[..., MadeApp]) -> None:
    app = make()
    request = predicted(app)
    events = app.gate.app.state.service.events
    path, events.path = events.path, Path("/dev/full")
    found = app.ask("/feedback", {"id": "f1", "request": request, "correct": True})
    assert found.status == 503
    events.path = path
    assert app.ask("/feedback", {"id": "f1", "request": request, "correct": True}).json["status"] == "recorded"


def test_damaged_events_are_told_to_whoever_runs_the_server_only(make: Callable[..., MadeApp]) -> None:
    app = make()
    request = predicted(app)
    (app.workspace.events / "other.jsonl").write_text('{"time": 1, "event": "feedback", "id": \n')
    found = app.ask("/feedback", {"id": "f1", "request": request, "correct": True})
    assert (found.status, found.code) == (503, "workspace_unusable")
    assert str(app.workspace.root) not in found.body.decode()


def test_the_index_is_opened_once_whoever_looks_and_let_go_of_at_the_end(
    make: Callable[..., MadeApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [predicted(make()) for _ in range(3)]
    opened, closed = [], []
    open_index = Index.open

    def counted(workspace: Workspace, url: str | None = None) -> Index:
        opened.append(open_index(workspace, url))
        return opened[-1]

    monkeypatch.setattr(Index, "open", counted)
    monkeypatch.setattr(Index, "close", lambda index: closed.append(index))
    app = make()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: app.service.index, range(8)))
    for request in requests:
        assert app.ask("/feedback", {"request": request, "correct": True}).status == 200
        assert app.ask("/label?model=reviews@champion").status == 200
    assert len(opened) == 1
    assert {id(each) for each in found} == {id(opened[0])}
    app.service.seats = {}
    app.loop.run_until_complete(app.service.stop())
    assert closed == opened
