from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import made_process
from danlu.core.artifact import Artifact
from danlu.core.experiments import Experiment
from danlu.core.workspace import Workspace
from danlu.serve.service import Service
from danlu.serve.trial import asker_of
from danlu.serve.worker import AskError
from made_process import make_word
from serving_words import NAME, asked, children, digest, promote, run, serving_words, told, until

ASKERS = [f"user:{number}" for number in range(40)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes without torch, and looks in quick succession."""
    monkeypatch.setattr("danlu.serve.worker.work", made_process.work)
    monkeypatch.setattr("danlu.serve.following._LOOK", 0.02)
    monkeypatch.setattr("danlu.serve.following._GRACE", 0.05)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def start(workspace: Workspace, one: Artifact, other: Artifact, mode: str = "live", share: float = 0.5) -> Experiment:
    plan = {"mode": mode, "share": share, "margin": 0.02, "budget": 100, "level": 0.05}
    return workspace.experiments.start(NAME, one.digest, other.digest, plan, by="a test")


async def begun(service: Service) -> None:
    await until(lambda: service.seats[NAME].trial is not None)


def test_each_asker_belongs_to_one_arm_and_it_is_written_down(workspace: Workspace) -> None:
    one, other = make_word(workspace, "one"), make_word(workspace, "other")

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            before = service.arm(NAME, "predict", "", "user:1")
            assert before.facts == {"model": NAME, "name": NAME, "digest": one.digest}
            running = start(workspace, one, other, share=0.3)
            await begun(service)
            arms = {asker: service.arm(NAME, "predict", "", asker) for asker in ASKERS}
            assert {arm.arm for arm in arms.values()} == {"champion", "challenger"}
            assert len({arm.unit for arm in arms.values()}) == len(ASKERS)
            for asker, arm in arms.items():
                assert arm.arm == running.arm(asker)
                assert await asked(service, asker) == ("other" if arm.arm == "challenger" else "one")
                assert service.arm(NAME, "write", "", asker).facts == arm.facts
                assert arm.facts["experiment"] == running.id
                assert arm.facts["digest"] == (other if arm.arm == "challenger" else one).digest
                assert asker not in str(arm.facts)
                vectors = service.arm(NAME, "embed", "", asker)
                assert (vectors.worker.model.digest, vectors.arm) == (one.digest, None)

    run(scene())


def test_an_experiment_that_ends_takes_its_challenger_with_it(workspace: Workspace) -> None:
    one, other = make_word(workspace, "one"), make_word(workspace, "other")

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            running = start(workspace, one, other)
            await begun(service)
            assert len(children()) == 2
            workspace.experiments.end(running.id, "inferior", {}, by="a test")
            await until(lambda: service.seats[NAME].trial is None)
            assert {await asked(service, asker) for asker in ASKERS} == {"one"}
            await until(lambda: len(children()) == 1)

    run(scene())


def test_a_challenger_that_is_promoted_is_in_place_at_once(workspace: Workspace) -> None:
    one, other = make_word(workspace, "one"), make_word(workspace, "other")

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            start(workspace, one, other)
            await begun(service)
            trial = service.seats[NAME].trial
            assert trial is not None
            promote(workspace, other)
            await until(lambda: digest(service) == other.digest)
            assert service.workers[NAME] is trial.worker
            assert service.seats[NAME].trial is None, "the experiment was about another champion"
            assert {await asked(service, asker) for asker in ASKERS} == {"other"}
            await until(lambda: len(children()) == 1)

    run(scene())


def test_an_experiment_about_another_champion_is_none(workspace: Workspace) -> None:
    one, other, third = (make_word(workspace, word) for word in ("one", "other", "third"))

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            start(workspace, third, other)
            await asyncio.sleep(0.3)
            assert service.seats[NAME].trial is None
            assert children() == {service.workers[NAME].pid}
            promote(workspace, third)
            await begun(service)
            assert digest(service) == third.digest

    run(scene())


def test_while_a_process_is_lost_the_experiment_stands_still_for_both_arms(workspace: Workspace) -> None:
    one, other = make_word(workspace, "one"), make_word(workspace, "other")

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            start(workspace, one, other)
            await begun(service)
            challenged = next(a for a in ASKERS if service.arm(NAME, "predict", "", a).arm == "challenger")
            given = service.arm(NAME, "predict", "", challenged)
            with pytest.raises(AskError) as lost:
                await asked(service, challenged, text="die")
            assert lost.value.code == "worker_lost", "what was given to an arm fails there"
            with pytest.raises(AskError, match="being started"):
                async with given.worker.ask({"kind": "predict", "inputs": ["x"]}):
                    pass
            for asker in ASKERS:
                arm = service.arm(NAME, "predict", "", asker)
                assert (arm.worker.model.digest, arm.arm, "experiment" in arm.facts) == (one.digest, None, False)
            await until(lambda: service.arm(NAME, "predict", "", challenged).arm == "challenger")
            assert await asked(service, challenged) == "other"

    run(scene())


def test_a_challenger_that_is_overloaded_fails_in_its_own_arm(workspace: Workspace) -> None:
    one, other = make_word(workspace, "one"), make_word(workspace, "other", seconds=5)

    async def scene() -> None:
        async with serving_words(workspace, one, limits={"queue": 1}) as service:
            start(workspace, one, other)
            await begun(service)
            challenged = next(a for a in ASKERS if service.arm(NAME, "predict", "", a).arm == "challenger")
            waiting = asyncio.create_task(asked(service, challenged))
            await asyncio.sleep(0.05)
            with pytest.raises(AskError) as full:
                await asked(service, challenged)
            assert (full.value.code, full.value.retry_after) == ("overloaded", 1.0)
            waiting.cancel()

    run(scene())


def test_a_challenger_that_cannot_be_read_leaves_everything_as_it_was(workspace: Workspace) -> None:
    one, bad = make_word(workspace, "one"), make_word(workspace, "bad", refused="not a model")

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            start(workspace, one, bad)
            await until(lambda: service.seats[NAME].n_failed == 1)
            assert {await asked(service, asker) for asker in ASKERS} == {"one"}
            assert service.ready == {NAME: True}

    run(scene())
    (failed,) = told(workspace, "swap failed")
    assert failed["digest"] == bad.digest


def labels(done: dict[str, Any]) -> list[str]:
    return [each["label"] for each in done["results"]]


def counted(service: Service, outcome: str) -> float:
    wanted = f'danlu_shadow_requests_total{{model="{NAME}",outcome="{outcome}"}}'
    lines = service.metrics().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted))


def test_in_the_shadow_the_champion_answers_and_the_challenger_is_asked_too(workspace: Workspace) -> None:
    one, other = make_word(workspace, "one"), make_word(workspace, "other", seconds=0.3)
    request = {"kind": "predict", "inputs": ["x", "y"], "stream": True}

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            service.shadow(service.arm(NAME, "predict", "", "user:1"), "req-0", request, labels)
            running = start(workspace, one, other, "shadow")
            await begun(service)
            assert {await asked(service, asker) for asker in ASKERS} == {"one"}
            arm = service.arm(NAME, "predict", "", "user:1")
            assert (arm.arm, arm.facts["experiment"]) == ("champion", running.id)
            service.shadow(arm, "req-1", request, labels)
            assert told(workspace, "shadow") == [], "nobody waits for it"
            await until(lambda: counted(service, "answered") == 1)
            service.shadow(arm, "req-2", {"kind": "predict", "inputs": ["die"]}, labels)
            await until(lambda: counted(service, "failed") == 1)

    run(scene())
    first, second = told(workspace, "shadow")
    known = {"name": NAME, "experiment": first["experiment"], "digest": other.digest}
    assert {key: first[key] for key in known} == known
    assert (first["request"], first["answers"]) == ("req-1", ["other", "other"])
    assert (second["request"], second["answers"], second["code"]) == ("req-2", None, "worker_lost")


def test_what_a_challenger_cannot_keep_up_with_is_dropped_and_counted(workspace: Workspace) -> None:
    one, other = make_word(workspace, "one"), make_word(workspace, "other", seconds=0.02)

    async def scene() -> None:
        async with serving_words(workspace, one) as service:
            start(workspace, one, other, "shadow")
            await begun(service)
            arm = service.arm(NAME, "predict", "", "user:1")
            for number in range(100):
                service.shadow(arm, f"req-{number}", {"kind": "predict", "inputs": ["x"]}, labels)
            assert counted(service, "dropped") == 68
            await until(lambda: counted(service, "answered") == 32)
            service.shadow(arm, "req-100", {"kind": "predict", "inputs": ["x"]}, labels)
            await until(lambda: counted(service, "answered") == 33)

    run(scene())
    assert len(told(workspace, "shadow")) == 33


def test_who_asks_is_the_first_that_is_known() -> None:
    assert asker_of("u", "k", "h", "a") == "user:u"
    assert asker_of(None, "k", "h", "a") == "key:k"
    assert asker_of("", None, "h", "a") == "header:h"
    assert asker_of(None, None, None, "a") == "address:a"
    assert asker_of("x", None, None, "") != asker_of(None, "x", None, "")
