from __future__ import annotations

import json

import pytest

from danlu.cli import verb as verbs
from danlu.core.errors import BusyError, RefusedError, UsageError


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    """Run a made-up verb that does what it is told."""

    def run(act, *words):
        app = verbs.typer.Typer()
        app.callback()(lambda: None)
        monkeypatch.setattr(verbs, "app", app)

        def made_up_(call: verbs.Call) -> verbs.Answer:
            """Do as told."""
            return act(call)

        verbs.verb(made_up_)
        with pytest.raises(SystemExit) as ended:
            app(["made_up", "-w", str(tmp_path / "w"), *words])
        return ended.value.code, *capsys.readouterr()

    return run


def test_an_answer_for_people_and_one_for_programs(said):
    def answer(call):
        call.progress.stage("thinking")
        return verbs.Answer({"answer": "四十二", "root": call.workspace.root.name}, "forty-two")

    assert said(answer) == (0, "forty-two\n", "thinking\n")
    code, out, err = said(answer, "--json")
    assert (code, err) == (0, "thinking\n")
    assert json.loads(out) == {"answer": "四十二", "root": "w"}


@pytest.mark.parametrize(("error", "code"), [(UsageError, 2), (BusyError, 1), (RefusedError, 3)])
def test_an_error_has_its_exit_code_and_no_traceback(said, error, code):
    def fail(_):
        raise error("no", where="there", advice="do this")

    assert said(fail) == (code, "", "error: no\n  where: there\n  what to do: do this\n")
    found, out, _ = said(fail, "--json")
    assert (found, json.loads(out)["exit_code"]) == (code, code)


def test_a_gate_that_refuses_still_answers(said):
    assert said(lambda _: verbs.Answer({}, "no", 3))[:2] == (3, "no\n")


def test_ctrl_c_says_how_to_go_on(said):
    def stop(_):
        raise KeyboardInterrupt

    code, out, err = said(stop)
    assert (code, out) == (130, "")
    assert "the same command goes on from the last checkpoint" in err
