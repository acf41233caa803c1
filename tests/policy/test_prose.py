"""The English and the Chinese README tell of the same commands, and of none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"(?<![\w./-])(danlu|make)[ \t]+(--?[a-z][\w-]*|[a-z][\w-]*)")


def commands(readme: Path) -> dict[str, int]:
    """Commands in code (fenced or in backticks) with the line where each stands first: ``danlu run``, ``make demo``."""
    found: dict[str, int] = {}
    fenced = False
    for number, line in enumerate(readme.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        for code in [line.partition("#")[0]] if fenced else re.findall(r"`([^`]+)`", line):
            for tool, verb in COMMAND.findall(code):
                found.setdefault(f"{tool} {verb}", number)
    return found


def differences(root: Path) -> list[str]:
    """Commands that one README has and the other has not."""
    english, chinese = (commands(root / name) for name in ("README.md", "README.zh-CN.md"))
    found = [f"README.md:{english[c]} {c} is not in README.zh-CN.md" for c in sorted(english.keys() - chinese.keys())]
    return found + [
        f"README.zh-CN.md:{chinese[c]} {c} is not in README.md" for c in sorted(chinese.keys() - english.keys())
    ]


def unknown_targets(root: Path) -> list[str]:
    """Targets of make that a README names and the Makefile lacks."""
    known = set(re.findall(r"^([a-z][\w-]*):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    return [
        f"{name}:{line} the Makefile has no {command.split()[1]}"
        for name in ("README.md", "README.zh-CN.md")
        for command, line in commands(root / name).items()
        if command.startswith("make ") and command.split()[1] not in known
    ]


def test_both_readmes_tell_of_the_same_commands() -> None:
    assert {"make demo", "make test", "danlu run"} <= commands(ROOT / "README.md").keys()
    assert differences(ROOT) == []


def test_every_make_target_that_is_told_of_exists() -> None:
    assert unknown_targets(ROOT) == []


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shell = "```sh\ndanlu run r.yaml  # then danlu log\n.venv/bin/danlu --help\n```\n"
    (tmp_path / "README.md").write_text(f"Run `make demo` first; make it good.\n\n{shell}")
    (tmp_path / "README.zh-CN.md").write_text("先 `make demo`，再 `danlu run r.yaml`。\n")
    (tmp_path / "Makefile").write_text(".PHONY: demo\nVAR := 1\ndemo: setup\n\techo\n")
    return tmp_path


def test_commands_are_those_in_code(project: Path) -> None:
    assert commands(project / "README.md") == {"make demo": 1, "danlu run": 4}
    assert differences(project) == []
    assert unknown_targets(project) == []


def test_a_difference_is_found(project: Path) -> None:
    (project / "README.zh-CN.md").write_text("先 `make demos`，\n再 `danlu predict x`。\n")
    assert differences(project) == [
        "README.md:4 danlu run is not in README.zh-CN.md",
        "README.md:1 make demo is not in README.zh-CN.md",
        "README.zh-CN.md:2 danlu predict is not in README.md",
        "README.zh-CN.md:1 make demos is not in README.md",
    ]
    assert unknown_targets(project) == ["README.zh-CN.md:1 the Makefile has no demos"]


def test_a_missing_readme_is_a_failure(project: Path) -> None:
    (project / "README.zh-CN.md").unlink()
    with pytest.raises(FileNotFoundError):
        differences(project)
