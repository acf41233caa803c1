"""The tools that others publish, run as they are, each in a process of its own.

modelDNA (``modeldna`` on PyPI) and Cisco's provenance kit (``cisco-ai-provenance-kit``, Python 3.12 or later) are
looked for beside this Python and on the path. One that is installed elsewhere is named by MODELDNA or PROVENANCE_KIT:
the program to run. They read Hugging Face folders; a model of danlu is exported to one for them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from danlu.core.errors import UsageError
from danlu.model.module import load_module
from danlu.model.pretrained.config import is_ours
from danlu.model.pretrained.save import save_pretrained
from scores import Score, Scorer, UndefinedError

__all__ = ["TOOLS"]

_SECONDS = 600


def modeldna(suspect: Path, reference: Path) -> Score:
    """The probability that modelDNA gives to descent: 0.9 and more is called that, 0.5 to 0.9 unresolved."""
    return _score(_modeldna, suspect, reference, ("verdict", "candidates", 0, "probability"))


def provenance_kit(suspect: Path, reference: Path) -> Score:
    """The score by which Cisco's provenance kit decides; 0.75 and more is a high-confidence match.

    Where both configs are the same it is 1 whatever the weights are.
    """
    return _score(_provenance_kit, suspect, reference, ("scores", "pipeline_score"))


def provenance_kit_weights(suspect: Path, reference: Path) -> Score:
    """What Cisco's provenance kit says of the weights alone, before the configs overrule it."""
    return _score(_provenance_kit, suspect, reference, ("scores", "identity_score"))


TOOLS: dict[str, Scorer] = {
    "modeldna": modeldna,
    "provenance-kit": provenance_kit,
    "provenance-kit-weights": provenance_kit_weights,
}
"""Tool -> what it says of a suspect's and a reference's folder; NaN and why where it says nothing or is not here."""


def _score(tool: Callable[[Path, Path], Any], suspect: Path, reference: Path, keys: Sequence[str | int]) -> Score:
    """A number of what a tool answers."""
    try:
        found = tool(suspect.absolute(), reference.absolute())
        for key in keys:
            found = found[key]
    except (UndefinedError, UsageError) as error:
        return Score(float("nan"), str(error))
    except (KeyError, IndexError, TypeError):
        return Score(float("nan"), f"the tool's answer has no {'.'.join(map(str, keys))}")
    return Score(float("nan"), "the tool gives no number") if found is None else Score(found)


def _modeldna(suspect: Path, reference: Path) -> dict[str, Any]:
    program = _program("modeldna", "MODELDNA")
    with tempfile.TemporaryDirectory() as scratch:
        folders = [_readable(suspect, Path(scratch) / "suspect"), _readable(reference, Path(scratch) / "reference")]
        return _answer([program, "compare", *folders, "--json"], {"MODELDNA_DB": f"{scratch}/db"})


def _provenance_kit(suspect: Path, reference: Path) -> dict[str, Any]:
    return _run_provenance_kit(_program("provenancekit", "PROVENANCE_KIT"), suspect, reference)


@lru_cache(maxsize=1)
def _run_provenance_kit(program: str, suspect: Path, reference: Path) -> dict[str, Any]:
    """Kept for one pair, for two scores are read from one run of ten seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [_readable(suspect, Path(scratch) / "suspect"), _readable(reference, Path(scratch) / "reference")]
        return _answer([program, "compare", *folders, "--json", "--no-cache"], {"HF_HOME": f"{scratch}/hub"})


def _program(name: str, variable: str) -> str:
    """Where a tool is.

    Raises:
        UndefinedError: Nowhere.
    """
    if told := os.environ.get(variable):
        if not Path(told).is_file():
            raise UndefinedError(f"{variable} names no file")
        return told
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise UndefinedError(f"{name} is not installed; {variable} may name it")
    return found


def _readable(folder: Path, into: Path) -> str:
    """The folder in Hugging Face layout; a model of ours is exported."""
    if not is_ours(folder):
        return str(folder)
    if not (folder / "tokenizer.json").is_file():
        raise UndefinedError(f"{folder.name} has no tokenizer to export with it")
    save_pretrained(load_module(folder), Tokenizer.from_file(str(folder / "tokenizer.json")), into)
    return str(into)


def _answer(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The JSON that a tool prints. It may look up nothing on the network.

    Raises:
        UndefinedError: It failed, or took too long, or printed something else.
    """
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "COLUMNS": "1000", "NO_COLOR": "1"}
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **offline, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UndefinedError(f"{name} took more than {_SECONDS} seconds") from error
    except OSError as error:
        raise UndefinedError(f"{name} does not start: {error.strerror}") from error
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        raise UndefinedError(f"{name} ended with {done.returncode} and no JSON: {said}") from error
    if not isinstance(found, dict):
        raise UndefinedError(f"{name} printed no JSON object")
    return found
