from __future__ import annotations

import socket
import threading
import time

import pytest

from danlu.serve.wire import Line, encoded


def test_messages_arrive_whole_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Line(theirs)
        content = encoded({"a": "好\n"}) + encoded([1]) + encoded({"b": None})
        for byte in content[:-1]:
            ours.send(bytes([byte]))
        found = line.receive(1.0)
        assert found == [{"a": "好\n"}, [1]]
        assert line.receive(0.0) == []
        ours.send(content[-1:])
        assert line.receive(1.0) == [{"b": None}]


def test_a_message_of_megabytes_passes_while_the_other_end_writes() -> None:
    ours, theirs = socket.socketpair()
    message = {"inputs": ["好" * 500_000, "x" * 2_000_000]}
    with ours, theirs:
        writing = threading.Thread(target=lambda: Line(ours).send(message))
        writing.start()
        line, found = Line(theirs), []
        while not found:
            found = line.receive(None)
        writing.join()
        assert found == [message]


def test_it_waits_as_long_as_it_is_told_and_hears_the_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        line = Line(theirs)
        began = time.monotonic()
        assert line.receive(0.05) == []
        assert time.monotonic() - began >= 0.05
        ours.sendall(encoded(1))
        ours.close()
        assert line.receive(None) == [1, None]
        with pytest.raises(OSError, match="pipe"):
            line.send(2)


def test_null_is_the_last_message() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encoded(1) + encoded(None))
        assert Line(theirs).receive(None) == [1, None]
