from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

import made_process
from danlu.core.errors import DanluError
from danlu.core.events import EventLog
from danlu.core.workspace import Workspace
from danlu.serve.config import ServeConfig
from danlu.serve.following import Target
from danlu.serve.keys import KeyRing
from danlu.serve.service import Service
from danlu.serve.worker import AskError
from made_process import make_word
from serving_words import NAME, asked, children, digest, promote, run, serving_words, told, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes without torch, and looks in quick succession."""
    monkeypatch.setattr("danlu.serve.worker.work", made_process.work)
    monkeypatch.setattr("danlu.serve.following._LOOK", 0.02)
    monkeypatch.setattr("danlu.serve.following._GRACE", 0.05)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_no_request_fails_while_models_change_to_and_fro(workspace: Workspace) -> None:
    models = [make_word(workspace, word, seconds=0.02) for word in ("a", "b", "c")]
    answers: list[str] = []

    async def scene() -> None:
        async with serving_words(workspace, models[0]) as service:
            done = False

            async def keep_asking(stream: bool) -> None:
                while not done:
                    answers.append(await asked(service, stream=stream))

            askers = [asyncio.create_task(keep_asking(stream=number % 3 == 0)) for number in range(9)]
            for model in (models[1], models[2], models[1], models[0]):
                promote(workspace, model)
                await until(lambda model=model: digest(service) == model.digest)
                n_before = len(answers)
                await until(lambda n=n_before: len(answers) > n + 20)
            done = True
            await asyncio.gather(*askers)
            assert await asked(service) == "a"
            assert service.seats[NAME].n_swaps == 4

    run(scene())
    assert set(answers) == {"a", "b", "c"}
    (first, *_), digests = told(workspace, "swap"), [model.digest for model in models]
    assert (first["name"], first["model"], first["from"], first["to"]) == (NAME, NAME, *digests[:2])
    assert first["seconds"] > 0


def test_the_old_process_finishes_its_streams_and_ends(workspace: Workspace) -> None:
    old, new = make_word(workspace, "old", seconds=1.5), make_word(workspace, "new")

    async def scene() -> None:
        async with serving_words(workspace, old) as service:
            pid = service.workers[NAME].pid
            assert pid is not None
            streams = [asyncio.create_task(asked(service, stream=True)) for _ in range(2)]
            await asyncio.sleep(0.1)
            promote(workspace, new)
            await until(lambda: digest(service) == new.digest)
            assert await asked(service) == "new", "nobody waits for a stranger's stream"
            assert psutil.pid_exists(pid)
            assert await asyncio.gather(*streams) == ["old", "old"]
            await until(lambda: not psutil.pid_exists(pid))

    run(scene())


def test_a_model_whose_process_has_not_ended_yet_is_taken_back_at_once(workspace: Workspace) -> None:
    old, new = make_word(workspace, "old", seconds=1.0), make_word(workspace, "new")

    async def scene() -> None:
        async with serving_words(workspace, old) as service:
            pid, stream = service.workers[NAME].pid, asyncio.create_task(asked(service, stream=True))
            await asyncio.sleep(0.1)
            promote(workspace, new)
            await until(lambda: digest(service) == new.digest)
            promote(workspace, old)
            await until(lambda: digest(service) == old.digest)
            assert service.workers[NAME].pid == pid
            assert await stream == "old"
            await asyncio.sleep(0.3)
            assert await asked(service) == "old"
            assert service.seats[NAME].n_starts == 2

    run(scene())


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"refused": "not a model"}, "not a model"),
    ({"dies": True}, "process ended while it read"),
    ({"task": "translation"}, "is for text-classification, and the new model for translation"),
]


@pytest.mark.parametrize(("ways", "reason"), BROKEN)
def test_a_model_that_cannot_be_served_changes_nothing(workspace: Workspace, ways: Any, reason: str) -> None:
    good, bad, better = make_word(workspace, "good"), make_word(workspace, "bad", **ways), make_word(workspace, "x")

    async def scene() -> None:
        async with serving_words(workspace, good) as service:
            promote(workspace, bad)
            await until(lambda: service.seats[NAME].n_failed == 1)
            assert service.ready == {NAME: True}
            assert await asked(service) == "good"
            await asyncio.sleep(0.3)
            assert service.seats[NAME].n_failed == 1, "it is tried again only when the ledger changes"
            workspace.ledger.set_alias("other", "champion", good, reason="a change")
            await until(lambda: service.seats[NAME].n_failed == 2)
            promote(workspace, better)
            await until(lambda: digest(service) == better.digest)

    run(scene())
    failed, _ = told(workspace, "swap failed")
    assert (failed["name"], failed["model"], failed["digest"]) == (NAME, NAME, bad.digest)
    assert reason in failed["reason"]


def test_a_model_for_another_task_is_none_though_its_process_has_not_ended_yet(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("danlu.serve.following._GRACE", 60)
    good, bad = make_word(workspace, "good"), make_word(workspace, "bad", task="translation")

    async def scene() -> None:
        async with serving_words(workspace, good) as service:
            promote(workspace, bad)
            await until(lambda: service.seats[NAME].n_failed == 1)
            workspace.ledger.set_alias("other", "champion", good, reason="a change")
            await until(lambda: service.seats[NAME].n_failed == 2)
            assert await asked(service) == "good"
            assert service.seats[NAME].n_starts == 2

    run(scene())


def test_a_damaged_model_and_a_damaged_ledger_change_nothing(workspace: Workspace) -> None:
    good, bad = make_word(workspace, "good"), make_word(workspace, "bad")
    (bad.path / "word.json").write_text("{}")

    async def scene() -> None:
        async with serving_words(workspace, good) as service:
            promote(workspace, bad)
            await until(lambda: service.seats[NAME].n_failed == 1)
            content = workspace.ledger.path.read_bytes()
            workspace.ledger.path.write_bytes(content.replace(b"a test", b"a jest"))
            await until(lambda: len(told(workspace, "swap failed")) == 2)
            assert await asked(service) == "good"
            workspace.ledger.path.write_bytes(content)
            await until(lambda: len(told(workspace, "swap failed")) == 3)

    run(scene())
    said = [event["digest"] for event in told(workspace, "swap failed")]
    assert said == [bad.digest, None, bad.digest]


def test_a_new_process_that_is_killed_while_it_starts_leaves_the_old_one(workspace: Workspace) -> None:
    old, new = make_word(workspace, "old"), make_word(workspace, "new", start=60)

    async def scene() -> None:
        async with serving_words(workspace, old) as service:
            first = service.workers[NAME].pid
            promote(workspace, new)
            await until(lambda: len(children()) == 2)
            (other,) = children() - {first}
            os.kill(other, signal.SIGKILL)
            await until(lambda: service.seats[NAME].n_failed == 1)
            assert await asked(service) == "old"
            assert children() == {first}

    run(scene())


def test_a_change_of_mind_ends_the_process_that_is_being_started(workspace: Workspace) -> None:
    old, slow, new = make_word(workspace, "old"), make_word(workspace, "slow", start=60), make_word(workspace, "new")

    async def scene() -> None:
        async with serving_words(workspace, old) as service:
            promote(workspace, slow)
            await until(lambda: len(children()) == 2)
            promote(workspace, new)
            await until(lambda: digest(service) == new.digest)
            await until(lambda: children() == {service.workers[NAME].pid})

    run(scene())
    assert told(workspace, "swap failed") == []


def test_the_end_comes_in_the_middle_of_a_change(workspace: Workspace) -> None:
    old, new = make_word(workspace, "old"), make_word(workspace, "new", start=60)

    async def scene() -> None:
        async with serving_words(workspace, old):
            promote(workspace, new)
            await until(lambda: len(children()) == 2)
        assert children() == set()

    run(scene())


def test_a_first_model_that_cannot_be_served_is_an_error(workspace: Workspace) -> None:
    async def scene() -> None:
        with pytest.raises(DanluError, match="not a model"):
            async with serving_words(workspace, make_word(workspace, "bad", refused="not a model")):
                pass
        assert children() == set()

    run(scene())


def test_a_folder_never_changes(workspace: Workspace) -> None:
    first, second = make_word(workspace, "first"), make_word(workspace, "second")

    async def scene() -> None:
        promote(workspace, first)
        keys, events = KeyRing(workspace.root / "keys.json"), EventLog(workspace.events, "serve")
        service = Service(workspace, {NAME: Target(first, NAME)}, ServeConfig(threads=1), keys, events)
        await service.start()
        try:
            promote(workspace, second)
            await asyncio.sleep(0.3)
            assert await asked(service) == "first"
        finally:
            await service.stop()

    run(scene())


def test_a_process_that_dies_after_a_change_is_started_again(workspace: Workspace) -> None:
    old, new = make_word(workspace, "old"), make_word(workspace, "new")

    async def scene() -> None:
        async with serving_words(workspace, old) as service:
            promote(workspace, new)
            await until(lambda: digest(service) == new.digest)
            with pytest.raises(AskError, match="process ended"):
                await asked(service, text="die")
            await until(lambda: service.ready[NAME])
            assert await asked(service) == "new"

    run(scene())


def test_thirty_changes_leave_nothing_behind(workspace: Workspace) -> None:
    models = [make_word(workspace, f"word {number}") for number in range(3)]

    def held() -> dict[str, int]:
        gc.collect()
        return {
            "threads": threading.active_count(),
            "files": len(list(Path("/proc/self/fd").iterdir())),
            "processes": len(children()),
        }

    async def scene() -> None:
        async with serving_words(workspace, models[0]) as service:
            before: dict[str, int] = {}
            for number in range(1, 34):
                model = models[number % 3]
                promote(workspace, model)
                await until(lambda model=model: digest(service) == model.digest)
                await until(lambda: len(children()) == 1 and not service.seats[NAME]._ending)
                assert await asked(service) == f"word {number % 3}"
                if number == 3:  # threads of the pool are made when they are first needed
                    before = held() | {"text": len(service.metrics())}
            seat = service.seats[NAME]
            assert len(seat._held) == 1
            assert held()["files"] <= before["files"]
            assert held()["processes"] == 1
            assert held()["threads"] <= before["threads"] + 4, "the pool of asyncio, which is bounded"
            assert len(service.metrics()) < before["text"] + 20, "a label a swap"
            assert (seat.n_swaps, seat.n_failed, seat.n_starts) == (33, 0, 34)

    run(scene())
