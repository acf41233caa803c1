"""What runs in the process that owns a model: it reads the model, then answers what the server asks.

An error at one request is that request's error. Where memory has run out or a device is lost, nothing can be relied on
any more, and the process ends: the server starts another.
"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.errors import DanluError
from danlu.serve.config import ServeConfig
from danlu.serve.wire import End, Line

__all__ = ["work"]


def work(end: End, folder: str, values: dict[str, Any], cores: int) -> None:
    """The process: read the model, then answer until the server is gone or says that it is enough.

    Args:
        end: This process's end of the line to the server.
        folder: The model's.
        values: A :class:`ServeConfig`.
        cores: Cores to compute with, where the config does not say how many threads.
    """
    # The server decides when it ends: a terminal's Ctrl-C and a service manager's SIGTERM reach all processes at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    import torch

    from danlu.model.predictor import load_predictor
    from danlu.serve.answering import batchers_of, facts_of
    from danlu.serve.threads import settle

    config = ServeConfig(**values)
    torch.set_num_threads(config.threads or cores)
    line = Line(end)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server is gone
        try:
            predictor = load_predictor(Artifact.open(Path(folder), "model"))
            batchers = batchers_of(predictor, config)
            facts = facts_of(predictor)
            if config.threads is None:
                settle(batchers, facts, cores)
        except DanluError as error:
            line.send({"failed": {"what": error.what, "where": error.where, "advice": error.advice}})
            return
        line.send({"ready": facts})
        _answer(line, batchers)


def _answer(line: Line, batchers: dict[str, Any]) -> None:
    """Take requests as they come, and work on one batch after another."""
    from danlu.serve.batcher import InputError, failure

    every = list({id(each): each for each in batchers.values()}.values())
    while True:
        busy = [each for each in every if each.busy]
        # Who is at work looks at what has come and goes on; who is not waits for it, however long, or a batch's time.
        patience = min((each.patience for each in busy), default=None)
        messages = line.receive(patience)
        replies: list[dict[str, Any]] = []
        for message in messages:
            if message is None:
                return
            if "cancel" in message:
                for each in every:
                    each.cancel(message["cancel"])
                continue
            try:
                batchers[message["kind"]].add(message)
            except InputError as error:
                replies.append({"id": message["id"], "error": error.facts})
            except Exception as error:
                replies.append(failure(message["id"], error))
        if not messages or not patience:
            for each in every:
                replies += each.step() if each.busy and not each.patience else []
        if replies:
            line.send(replies)
