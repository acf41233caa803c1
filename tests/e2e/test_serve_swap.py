"""``danlu serve`` while the ledger moves: real processes, real requests, and none that fails."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu.core.artifact import Artifact
from danlu.core.workspace import Workspace
from made_serving import make_served
from served import Served, serving, until

pytestmark = pytest.mark.xdist_group("serve")

NAME = "reviews@champion"
LONG = {"model": "poems", "prompt": "好", "max_tokens": 1500, "temperature": 1.0, "seed": 1, "stream": True}


def told(server: Served, event: str) -> list[dict[str, Any]]:
    return [each for each in server.events() if each["event"] == event]


def digest(server: Served, name: str = NAME) -> str:
    return str(server.ask(f"/v1/models/{name}").json["digest"])


def classify(server: Served, user: str = "somebody") -> Any:
    return server.ask("/predict", {"model": NAME, "inputs": ["好棒赞"]}, **{"x-danlu-user": user})


@contextlib.contextmanager
def asking(server: Served) -> Iterator[list[Any]]:
    """Three who ask again and again; what came back."""
    replies: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.1):
            replies.append(classify(server))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        done.set()
        for thread in threads:
            thread.join()


def soon(true: Callable[[], bool]) -> None:
    """A process that has a model to read may take its time on a busy machine."""
    until(true, seconds=300)


def version(workspace: Workspace, name: str, task: Any, width: int, **changes: Any) -> Artifact:
    """A model of a width; the name's champion from now on."""
    return make_served(workspace, name, task, d_model=width, **changes)


@pytest.mark.timeout(900)
def test_models_are_tried_change_under_requests_and_are_taken_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    poems = version(workspace, "poems", "language-modelling", 16, max_len=4000)
    other = version(workspace, "reviews", "text-classification", 24)
    one = version(workspace, "reviews", "text-classification", 16)
    with serving(workspace.root, NAME, "poems", folder=tmp_path / "block") as server:
        assert digest(server) == one.digest
        a_user_has_one_arm(server, workspace, one, other)
        the_shadow_is_asked_too(server, workspace, one, other)
        nobody_notices_a_change(server, workspace, one, other)
        a_stream_goes_on_to_its_end(server, workspace, poems)
        a_damaged_model_changes_nothing(server, workspace, one)
        the_end_comes_in_the_middle_of_a_change(server, workspace)


def nobody_notices_a_change(server: Served, workspace: Workspace, one: Artifact, other: Artifact) -> None:
    with asking(server) as replies:
        workspace.ledger.set_alias("reviews", "champion", other, reason="it is better", expect=one.digest)
        until(lambda: digest(server) == other.digest, seconds=30)  # it is held already: the experiment's challenger
        running = workspace.experiments.running("reviews")
        assert running is not None
        workspace.experiments.end(running.id, "superior", {}, by="a test")
        soon(lambda: len(server.children()) == 2)
        workspace.ledger.set_alias("reviews", "champion", one, reason="it was not", expect=other.digest)
        soon(lambda: digest(server) == one.digest)
        n_before = len(replies)
        soon(lambda: len(replies) > n_before + 10)
    assert {reply.status for reply in replies} == {200}
    assert {reply.json["digest"] for reply in replies} == {one.digest, other.digest}
    there, back = told(server, "swap")
    assert (there["name"], there["model"]) == ("reviews", NAME)
    assert (there["from"], there["to"]) == (one.digest, other.digest)
    assert (back["from"], back["to"]) == (other.digest, one.digest)
    assert there["seconds"] < back["seconds"]


def a_stream_goes_on_to_its_end(server: Served, workspace: Workspace, poems: Artifact) -> None:
    with server.raw("/v1/completions", LONG) as opened:
        content = opened.recv(65536)
        newer = version(workspace, "poems", "language-modelling", 24, max_len=4000)
        soon(lambda: digest(server, "poems") == newer.digest)
        while b"data: [DONE]" not in content:
            piece = opened.recv(2**20)
            assert piece, content[-300:]
            content = content[-100:] + piece
    soon(lambda: len(server.children()) == 2)
    (streamed,) = [each for each in told(server, "request") if each.get("digest") == poems.digest]
    assert (streamed["status"], streamed.get("code")) == (200, None)


def a_damaged_model_changes_nothing(server: Served, workspace: Workspace, one: Artifact) -> None:
    damaged = version(workspace, "broken", "text-classification", 32)
    (damaged.path / "model.json").write_text("{}")
    workspace.ledger.set_alias("reviews", "champion", damaged, reason="a mistake")
    soon(lambda: len(told(server, "swap failed")) == 1)
    (failed,) = told(server, "swap failed")
    assert (failed["name"], failed["model"], failed["digest"]) == ("reviews", NAME, damaged.digest)
    assert "model.json" in failed["reason"]
    assert server.ask("/health/ready").status == 200
    assert classify(server).json["digest"] == one.digest
    workspace.ledger.set_alias("reviews", "champion", one, reason="back")


def a_user_has_one_arm(server: Served, workspace: Workspace, one: Artifact, other: Artifact) -> None:
    plan = {"mode": "live", "share": 0.5, "margin": 0.02, "budget": 100, "level": 0.05}
    running = workspace.experiments.start("reviews", one.digest, other.digest, plan, by="a test")
    soon(lambda: "arm" in told_after(server, classify(server).json["id"]))
    for user in ("a", "b", "c", "d", "e", "f"):
        answers = [classify(server, user).json for _ in range(2)]
        arm = running.arm(f"header:{user}")
        assert {answer["digest"] for answer in answers} == {(other if arm == "challenger" else one).digest}
        for answer in answers:
            event = told_after(server, answer["id"])
            assert (event["experiment"], event["arm"], event["name"]) == (running.id, arm, "reviews")
    workspace.experiments.end(running.id, "stopped", {}, by="a test")


def the_shadow_is_asked_too(server: Served, workspace: Workspace, one: Artifact, other: Artifact) -> None:
    plan = {"mode": "shadow", "share": 0.5, "margin": 0.02, "budget": 100, "level": 0.05}
    running = workspace.experiments.start("reviews", one.digest, other.digest, plan, by="a test")
    soon(lambda: told_after(server, classify(server).json["id"]).get("experiment") == running.id)
    answer = classify(server).json
    assert answer["digest"] == one.digest
    soon(lambda: any(each["request"] == answer["id"] for each in told(server, "shadow")))
    shadow = next(each for each in told(server, "shadow") if each["request"] == answer["id"])
    assert (shadow["name"], shadow["experiment"], shadow["digest"]) == ("reviews", running.id, other.digest)
    assert shadow["answers"][0]["label"] in ("good", "bad")
    assert shadow["answers"][0].keys() == told_after(server, answer["id"])["answers"][0].keys()


def told_after(server: Served, request: str) -> dict[str, Any]:
    return next(each for each in told(server, "request") if each["id"] == request)


def the_end_comes_in_the_middle_of_a_change(server: Served, workspace: Workspace) -> None:
    with server.raw("/v1/completions", {**LONG, "max_tokens": 300}) as opened:
        content = opened.recv(100)
        version(workspace, "reviews", "text-classification", 40)
        soon(lambda: len(server.children()) == 3)
        children = server.children()
        server.process.send_signal(signal.SIGTERM)
        while piece := opened.recv(2**20):
            content += piece
    assert b"data: [DONE]" in content
    assert server.process.wait(60) == 0
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
