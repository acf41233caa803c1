"""Who takes part in an audit: what the words of the command line mean, a folder or an endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from danlu.audit.behaviour import Questions
from danlu.audit.endpoint import Endpoint, is_address, is_here
from danlu.audit.speaker import Speaker, open_speaker
from danlu.core.errors import UsageError
from danlu.core.workspace import Workspace

__all__ = ["Party", "controls_of", "find_party", "models_in", "questions_in"]

Heard = Callable[[int, int], None]


@dataclass(frozen=True)
class Party:
    """One that takes part.

    Attributes:
        name: What the user calls it.
        source: Its folder, or the endpoint that it is behind.
        address: The endpoint's address.
    """

    name: str
    source: Path | Endpoint
    address: str = ""

    @property
    def folder(self) -> Path | None:
        """Its folder, if it has one."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def is_away(self) -> bool:
        """Whether what it is asked leaves this machine."""
        return self.folder is None and not is_here(self.address)

    def speaker(self) -> Speaker | str:
        """What answers; or why nothing does. Errors as of :func:`danlu.audit.speaker.open_speaker`."""
        return open_speaker(self.source) if isinstance(self.source, Path) else self.source

    def told(self) -> dict[str, str]:
        """What the record says of it."""
        if isinstance(self.source, Path):
            return {"name": self.source.name if "/" in self.name else self.name, "folder": self.source.name}
        return {"name": self.name, "folder": re.sub(r"[^\w.-]+", "-", self.source.name), "model": self.source.name}


def find_party(
    workspace: Workspace, target: str, key: str, endpoint: tuple[str | None, str | None], heard: Heard
) -> Party:
    """What a word of the command line means.

    Args:
        workspace: Where models of ours are found.
        target: A folder, ``name@alias``, a name alone, or an address.
        key: The key that names an endpoint's model.
        endpoint: What the user gave for it, and the environment variable with the key of the endpoint.
        heard: Told of requests.

    Raises:
        UsageError: Nothing is called that, or model and key do not fit it.
    """
    model, key_env = endpoint
    if is_address(target):
        if model is None:
            advice = f"give what the server calls it: {key}=NAME"
            raise UsageError("an endpoint may serve several models", where=target, advice=advice)
        return Party(target, Endpoint(target, model, key_env, heard), target)
    for name, value in ((key, model), (key.removesuffix("model") + "key_env", key_env)):
        if value is not None:
            advice = f"leave out {name}, or give the address of an endpoint"
            raise UsageError(f"{name} is for an endpoint, and {target} is none", where=name, advice=advice)
    path = Path(target).expanduser()
    if (path / "config.json").is_file():
        return Party(target, path.absolute())
    return Party(target, workspace.target(target, "model").path)


def models_in(folder: str | None) -> tuple[Party, ...]:
    """The models in a folder, one a folder.

    Raises:
        UsageError: There are none.
    """
    if folder is None:
        return ()
    path = Path(folder).expanduser().absolute()
    found = tuple(sorted(each.parent for each in path.glob("*/config.json")))
    if not found:
        advice = "give a folder with one folder a model: config.json, model.safetensors"
        raise UsageError("there are no models in this folder", where=str(path), advice=advice)
    return tuple(Party(each.name, each) for each in found)


def controls_of(target: str | None, heard: Heard) -> tuple[Party, ...]:
    """The models in a folder, or the endpoints that a file names.

    Raises:
        UsageError: There are none, or a line is not understood.
    """
    if target is None or not Path(target).expanduser().is_file():
        return models_in(target)
    found = []
    for number, line in _lines(target):
        address, *more = line.split()
        if not is_address(address) or not 1 <= len(more) <= 2:
            advice = "one endpoint a line: address, model, and the environment variable with the key where one is due"
            raise UsageError(f"not understood: {line!r}", where=f"{target}:{number}", advice=advice)
        found.append(Party(more[0], Endpoint(address, more[0], more[1] if more[1:] else None, heard), address))
    return tuple(found)


def questions_in(path: str, n: int) -> Questions:
    """What a user's file asks: one question a line, or a jsonl file with ``prompt`` and, where it is known, ``answer``.

    Args:
        path: The file.
        n: The most that are taken, the first ones.

    Raises:
        UsageError: There is none, or a row of it is not understood.
    """
    found: dict[str, str | None] = {}
    for number, line in _lines(path):
        prompt, answer = _question(line) if path.endswith(".jsonl") else (line, None)
        if prompt is None:
            advice = 'one question a line: {"prompt": "...", "answer": "..."}, the answer where it is known'
            raise UsageError("not understood", where=f"{path}:{number}", advice=advice)
        found[prompt] = answer
    asked = list(found)[:n]
    return Questions(asked=asked, truths=[found[each] for each in asked], source=Path(path).name)


def _question(line: str) -> tuple[str | None, str | None]:
    """A row of a jsonl file; nothing where it is none."""
    try:
        row = json.loads(line)
        prompt, answer = row["prompt"], row.get("answer")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, None
    return (prompt, answer) if isinstance(prompt, str) and isinstance(answer, str | None) else (None, None)


def _lines(path: str) -> list[tuple[int, str]]:
    """The lines of a user's file that are not empty, with their numbers."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the file: {reason}", where=path) from error
    found = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise UsageError("the file is empty", where=path, advice="write one question, or one endpoint, a line")
    return found
