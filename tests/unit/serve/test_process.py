from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from danlu.serve.batcher import Gathering, Kind
from danlu.serve.process import _answer
from danlu.serve.wire import Line, encoded


def prepared(given: Any) -> int:
    if given == "bug":
        raise KeyError("a bug before the batch")
    return int(given)


def answered(numbers: Any) -> list[float]:
    return [1 / number if number < 100 else _exhausted() for number in numbers]


def _exhausted() -> float:
    raise MemoryError


def ask(*inputs: Any) -> dict[int, Any]:
    """What the process replies to requests of one input each that are there at once, and then nothing more."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number, given in enumerate(inputs):
            ours.sendall(encoded({"id": number, "kind": "invert", "inputs": [given]}))
        replies: dict[int, Any] = {}

        def read() -> None:
            line = Line(ours)
            while len(replies) < len(inputs):
                for message in line.receive(None):
                    if message is None:
                        return
                    replies.update({reply["id"]: reply for reply in message})
            ours.sendall(encoded(None))

        reading = threading.Thread(target=read)
        reading.start()
        try:
            _answer(Line(theirs), {"invert": Gathering({"invert": Kind(prepared, answered)}, 8, 0.0)})
        finally:
            theirs.shutdown(socket.SHUT_RDWR)
            reading.join()
    return replies


def test_a_request_at_which_the_model_fails_spoils_no_other() -> None:
    replies = ask(2, 0, "bug", 4)
    assert replies[0]["done"]["results"] == [0.5]
    assert replies[3]["done"]["results"] == [0.25]
    for number in (1, 2):
        assert (replies[number]["error"]["code"], replies[number]["error"]["status"]) == ("answer_failed", 503)


def test_where_memory_runs_out_the_process_ends() -> None:
    with pytest.raises(MemoryError):
        ask(2, 100)
