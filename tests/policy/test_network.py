"""The network block bites: in this process, in one that is started, and in those that it starts."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from network import NetworkBlockedError, attempts, no_network, no_network_env

ELSEWHERE = "192.0.2.1"
"""An address that is kept for documentation and belongs to nobody (RFC 5737)."""


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (ELSEWHERE, 9))


def udp_message() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendmsg([b"x"], [], 0, (ELSEWHERE, 9))


def connect_ex() -> None:
    with socket.socket() as caller:
        caller.connect_ex((ELSEWHERE, 9))


WAYS_OUT: dict[str, Callable[[], object]] = {
    "connect": lambda: socket.create_connection((ELSEWHERE, 9), timeout=1),
    "connect_ex": connect_ex,
    "udp": udp,
    "udp message": udp_message,
    "name": lambda: socket.getaddrinfo("example.org", 80),
    "old name": lambda: socket.gethostbyname("example.org"),
    "v6": lambda: socket.create_connection(("2001:db8::1", 9), timeout=1),
    "http": lambda: urllib.request.urlopen("http://example.org", timeout=1),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_every_way_out_is_blocked_and_remembered(way: str) -> None:
    with no_network() as tried:
        with pytest.raises(OSError, match="no network here"):
            WAYS_OUT[way]()
        assert len(tried) == 1
        tried.clear()


def test_an_attempt_whose_error_is_swallowed_is_still_caught() -> None:
    with (
        pytest.raises(NetworkBlockedError, match=f"the network was tried: socket.connect {ELSEWHERE}"),
        no_network(),
        contextlib.suppress(OSError),
    ):
        socket.create_connection((ELSEWHERE, 9), timeout=1)


def test_this_machine_may_talk_to_itself_unless_that_is_blocked_too(server: int) -> None:
    for name in ("127.0.0.1", "localhost"):
        with no_network():
            socket.create_connection((name, server), timeout=5).close()
    with no_network(loopback=False) as tried:
        with pytest.raises(NetworkBlockedError):
            socket.create_connection(("127.0.0.1", server), timeout=5)
        assert tried == ["socket.connect 127.0.0.1"]
        tried.clear()


def test_the_block_ends(server: int) -> None:
    with no_network(loopback=False):
        pass
    socket.create_connection(("127.0.0.1", server), timeout=5).close()


CHILD = """
import socket, subprocess, sys
code = "import socket; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)"
if sys.argv[3] == "itself":
    exec(code)
else:
    code = "import sys; " + code
    sys.exit(subprocess.run([sys.executable, "-P", "-c", code, *sys.argv[1:3]]).returncode)
"""


@pytest.mark.parametrize("who", ["itself", "its child"])
@pytest.mark.parametrize("loopback", [True, False])
def test_a_started_process_has_no_network(tmp_path: Path, server: int, who: str, loopback: bool) -> None:
    environment = no_network_env(tmp_path / "block", loopback=loopback)

    def reach(host: str, port: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CHILD, host, str(port), who]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    blocked = reach(ELSEWHERE, 9)
    assert blocked.returncode == 1
    assert "NetworkBlockedError" in blocked.stderr
    assert attempts(tmp_path / "block") == [f"socket.connect {ELSEWHERE}"]
    assert reach("127.0.0.1", server).returncode == (0 if loopback else 1)
    assert len(attempts(tmp_path / "block")) == (1 if loopback else 2)


def test_a_process_that_behaves_leaves_no_trace(tmp_path: Path) -> None:
    environment = no_network_env(tmp_path / "block", loopback=False)
    command = [sys.executable, "-c", "import danlu.core.workspace; print('fine')"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("fine\n", "")
    assert attempts(tmp_path / "block") == []
