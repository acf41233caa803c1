"""Takes the network away from this process, or from a Python process that is started.

Any attempt to connect, to send or to look a name up raises :class:`NetworkBlockedError`, an OSError as where there is
no network, and is remembered, so that code which swallows the error is still caught. It is an audit hook of the
interpreter, so it bites below `socket`; programs that are not Python, and libraries that make system calls themselves,
are not seen.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["NetworkBlockedError", "attempts", "block_from_environment", "no_network", "no_network_env"]

_LOG = "DANLU_TEST_NETWORK_LOG"
_LOOPBACK = "DANLU_TEST_NETWORK_LOOPBACK"
_SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
_HERE = {None, "", b"", "localhost", b"localhost"}


class NetworkBlockedError(OSError):
    """Something tried to use the network."""


@contextlib.contextmanager
def no_network(*, loopback: bool = True) -> Iterator[list[str]]:
    """Block the network in this process while the block runs.

    Args:
        loopback: Whether this machine may still talk to itself.

    Yields:
        The attempts so far. Those that are still in it when the block ends well are an error; a test that expects one
        clears it.

    Raises:
        NetworkBlockedError: Something tried, even if it then swallowed the error.
    """
    seen: list[str] = []
    _Hook.install()
    _Hook.blocks.append((loopback, seen.append))
    try:
        yield seen
    finally:
        _Hook.blocks.pop()
    if seen:
        raise NetworkBlockedError(errno.ENETUNREACH, f"the network was tried: {'; '.join(seen)}")


def no_network_env(folder: Path, *, loopback: bool = True) -> dict[str, str]:
    """The environment for a process, and all Python processes that it starts, to have no network.

    Args:
        folder: An empty folder to keep what this needs; :func:`attempts` reads what was tried from there.
        loopback: Whether the process may talk to this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "danlu_no_network.py").write_bytes(Path(__file__).read_bytes())
    start = "import danlu_no_network\n\ndanlu_no_network.block_from_environment()\n"
    (folder / "sitecustomize.py").write_text(start)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    log = folder / "attempts.txt"
    log.touch()
    return {**os.environ, "PYTHONPATH": path, _LOG: str(log), _LOOPBACK: str(int(loopback))}


def attempts(folder: Path) -> list[str]:
    """What processes with :func:`no_network_env` tried."""
    return (folder / "attempts.txt").read_text(encoding="utf-8").splitlines()


def block_from_environment() -> None:
    """Block for the rest of this process's life, as the environment says."""
    log = os.environ[_LOG]

    def remember(attempt: str) -> None:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{attempt}\n")

    _Hook.install()
    _Hook.blocks.append((os.environ[_LOOPBACK] == "1", remember))


class _Hook:
    """The one hook of this process: an audit hook can never be taken away again."""

    installed = False
    blocks: list[tuple[bool, Callable[[str], object]]] = []

    @classmethod
    def install(cls) -> None:
        if not cls.installed:
            cls.installed = True
            sys.addaudithook(cls.hear)

    @classmethod
    def hear(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if not cls.blocks or not event.startswith("socket."):
            return
        loopback, remember = cls.blocks[-1]
        if event in _LOOKUPS:
            host = arguments[0]
            allowed = host in _HERE or _address(host) is not None  # a number needs no looking up
        elif event in _SENDS and isinstance(arguments[1], tuple):  # otherwise a socket file, or connected before
            host = arguments[1][0]
            address = _address(host)
            allowed = loopback and (host in _HERE or (address is not None and address.is_loopback))
        else:
            return
        if not allowed:
            attempt = f"{event} {host}"
            remember(attempt)
            raise NetworkBlockedError(errno.ENETUNREACH, f"no network here: {attempt}")


def _address(host: str | bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return None
