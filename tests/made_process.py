"""A process for models that are a word: it starts in an instant, and does what its model's folder says."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.workspace import Workspace
from danlu.serve.wire import Line

__all__ = ["make_word", "work"]


def make_word(workspace: Workspace, word: str, name: str = "reviews", **ways: Any) -> Artifact:
    """A model that answers everything with a word.

    Args:
        workspace: Where.
        word: What it answers.
        name: Its name.
        ways: ``seconds`` that an answer takes; ``start`` seconds that reading takes; ``refused``: why it cannot be
            read; ``dies`` while it is read; ``task``; ``kinds``.
    """
    with workspace.create("model", name, key=f"{word} {ways}", config={}, parents={}) as draft:
        (draft.folder / "word.json").write_text(json.dumps({"word": word, **ways}))
    return draft.artifact


def work(end: socket.socket, folder: str, values: dict[str, Any], cores: int) -> None:  # noqa: ARG001  as the real one
    """Stands in for :func:`danlu.serve.process.work`; a stream has ten parts."""
    ways = json.loads((Path(folder) / "word.json").read_text())
    time.sleep(ways.get("start", 0))
    if ways.get("dies"):
        os._exit(9)
    line = Line(end)
    if "refused" in ways:
        line.send({"failed": {"what": ways["refused"], "where": folder, "advice": None}})
        return
    kinds = ways.get("kinds", ["embed", "predict", "write"])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.send(
            {"ready": {"task": ways.get("task", "text-classification"), "kinds": kinds, "classes": [ways["word"]]}}
        )
        while True:
            for message in line.receive(None):
                if message is None:
                    return
                if "cancel" not in message:
                    _answer(line, message, ways)


def _answer(line: Line, message: dict[str, Any], ways: dict[str, Any]) -> None:
    if "die" in message.get("inputs", []):
        os._exit(9)
    n_parts = 10 if message.get("stream") else 0
    for number in range(n_parts):
        time.sleep(ways.get("seconds", 0) / n_parts)
        line.send([{"id": message["id"], "parts": [{"index": 0, "text": f"{ways['word']}{number}", "ended": None}]}])
    if not n_parts:
        time.sleep(ways.get("seconds", 0))
    results = [{"label": ways["word"]} for _ in message.get("inputs", [])]
    line.send([{"id": message["id"], "done": {"results": results, "batch": 1}}])


if __name__ == "__main__":  # ``danlu``, but for what runs in the processes of its models
    import danlu.serve.worker
    import made_process
    from danlu.cli import main

    danlu.serve.worker.work = made_process.work
    main()
