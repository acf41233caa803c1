"""The command line is a promise: verbs and options stay as they are until this list is changed on purpose."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from danlu.cli.verbs import app

SHARED = ["--workspace", "-w", "--json", "--debug"]
VERBS = {
    "run": ["recipe", "overrides", "--tensorboard"],
    "data": ["recipe", "overrides", "--engine"],
    "train": ["recipe", "overrides", "--tensorboard", "--profile"],
    "plan": ["recipe", "overrides"],
    "tune": ["recipe", "overrides"],
    "eval": ["model", "overrides"],
    "compare": ["models"],
    "predict": ["model", "texts", "--decode"],
    "serve": ["models", "--new-key"],
    "monitor": ["model", "overrides"],
    "export": ["model", "folder"],
    "audit": ["suspect", "overrides"],
    "verify": ["model", "overrides"],
    "feedback": ["name", "overrides"],
    "improve": ["name", "overrides"],
    "promote": ["name", "overrides"],
    "log": ["names"],
    "config": ["what", "recipe", "overrides"],
    "doctor": [],
    "fetch": ["name", "--mirror"],
}
HEAVY = ["torch", "pyarrow", "sklearn", "matplotlib", "pydantic", "scipy", "numpy", "tokenizers", "jinja2", "yaml"]
HEAVY += ["ray", "fastapi", "uvicorn", "prometheus_client"]


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands


def test_the_verbs_are_these() -> None:
    assert sorted(commands()) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_arguments_and_options_of_a_verb_are_these(verb: str) -> None:
    found = []
    for parameter in commands()[verb].params:
        is_option = parameter.param_type_name == "option"
        found += [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name]
    assert sorted(found) == sorted([*VERBS[verb], *SHARED])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_every_option_says_what_it_is_for(verb: str) -> None:
    command = commands()[verb]
    assert command.help
    assert all(parameter.help for parameter in command.params), verb


IMPORTED = """
import sys
from danlu.cli import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = [name for name in sys.argv[1].split(",") if name in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["-h"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = [name for name in HEAVY if not ("run" in words and name == "pydantic")]  # typer reads types with it
    command = [sys.executable, "-c", IMPORTED, ",".join(heavy), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    if "run" not in words:
        assert all(f" {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize(("words", "message"), [(["rnu"], "No such command"), (["run"], "Missing argument")])
def test_wrong_use_has_its_own_exit_code(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
