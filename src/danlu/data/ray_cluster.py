"""A Ray to work under: the cluster that ``RAY_ADDRESS`` names, else one of our own on this machine.

One of our own listens on the loopback address alone, behind a token that only its own processes know, and keeps its
files in a folder that is removed when the work ends. Ray would send usage statistics, and ask whether it runs in a
cloud: the first is switched off; for the second, its processes are given a proxy that leads nowhere. A cluster is in
the hands of whoever started it, and the records travel there.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import os
import secrets
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.core.errors import DanluError, UsageError

__all__ = ["RETRIES", "Cluster", "connected", "first_line", "ray_unwarned"]

RETRIES = 3
"""How often a batch whose worker died is tried again."""
_SECONDS_TO_ANSWER = 10
"""How long a cluster may take to accept a connection."""
_NOWHERE = "127.0.0.1:9"
"""A proxy that nobody runs: the port is that of the discard service."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_SHARED = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(RETRIES)}
"""The environment in which any Ray is used."""
_PRIVATE = {
    **_SHARED,
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too, the node is then at the loopback address
    "RAY_AUTH_MODE": "token",
    **{name: _NOWHERE for proxy in _PROXIES for name in (proxy, proxy.upper())},
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,::1,localhost"),
}
"""That of a Ray of our own, beside its token."""


@dataclass(frozen=True)
class Cluster:
    """A Ray that has been started or reached.

    Attributes:
        version: Ray's.
        where: What it is called in messages.
        workers: Its processors.
    """

    version: str
    where: str
    workers: int


@contextlib.contextmanager
def connected() -> Iterator[Cluster]:
    """Ray until the block ends. A program that has called ``ray.init`` itself keeps its own.

    Raises:
        UsageError: The package ray is not installed, or ``RAY_ADDRESS`` is one of Ray's client.
        DanluError: Ray cannot be started, kept to this machine, or reached.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        what = "Ray Data does not work through Ray's client"
        advice = "run danlu on a machine of the cluster, with RAY_ADDRESS=host:port, the port that Ray was started with"
        raise UsageError(what, where=f"RAY_ADDRESS={address}", advice=advice)
    private = address == "local"
    with contextlib.ExitStack() as stack:
        stack.enter_context(_variables({**_PRIVATE, "RAY_AUTH_TOKEN": _token()} if private else _SHARED))
        ray = _package()
        stack.enter_context(_silence(ray))
        where = "this machine" if private else f"the cluster at {address}"
        if ray.is_initialized():
            where = "this program's own cluster"
        else:
            folder = None
            if private:
                ours = stack.enter_context(tempfile.TemporaryDirectory(prefix="danlu-", ignore_cleanup_errors=True))
                folder = f"{ours}/r"  # Ray opens its own folder to every user of the machine, and not the one around
            stack.callback(ray.shutdown)
            _start(ray, address, folder)
        workers = max(int(ray.cluster_resources().get("CPU", 0)), 1)
        yield Cluster(ray.__version__, where, workers)


def _package() -> Any:
    try:
        with ray_unwarned():
            import ray
            import ray.data
    except ImportError as error:
        what = f"the package {error.name or 'ray'} is not installed"
        raise UsageError(what, where="--engine ray", advice="pip install 'danlu[ray]'") from error
    return ray


def _start(ray: Any, address: str, folder: str | None) -> None:
    """Starts a Ray of our own in a folder, or reaches a cluster.

    Raises:
        DanluError: It does not start, listens to other machines, or does not answer.
    """
    shared = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if folder is None:
            _knock(address)
            ray.init(address=address, **shared)
            return
        ray.init(address="local", num_cpus=_processors(), include_dashboard=False, _temp_dir=folder, **shared)
    except Exception as error:
        what = f"Ray could not be {'reached' if folder is None else 'started'}: {first_line(error)}"
        advice = (
            "check RAY_ADDRESS, or unset it to use this machine; Ray and Python must be the cluster's versions"
            if folder is None
            else f"free some memory, disk and processor time, or give TMPDIR a shorter path: {folder} is in it now"
        )
        raise DanluError(what, where=address if folder is None else "--engine ray", advice=advice) from error
    here = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(here).is_loopback:
        what = f"Ray listens at {here}, where other machines could reach it"
        raise DanluError(what, where="--engine ray", advice="start a cluster of your own, and set RAY_ADDRESS")


def _knock(address: str) -> None:
    """Sees whether anybody listens at an address: Ray itself would try for many minutes.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.rpartition(":")
    if port.isdigit():  # otherwise a word such as "auto", which Ray looks up
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _processors() -> int:
    """The processors that this process may use: those that it is bound to, or its container's share of them."""
    n = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no such file, or no limit, which it calls "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        n = min(n, max(int(quota) // int(period), 1))
    return n


@functools.cache
def _token() -> str:
    """What the processes of our own Ray know each other by; Ray remembers the first of a process."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment, until the block ends."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def ray_unwarned() -> Iterator[None]:
    """Without the warnings that Ray gives of its own code, and of the only way to say ``max_retries``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\b")
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        yield


@contextlib.contextmanager
def _silence(ray: Any) -> Iterator[None]:
    """Neither bars nor a log on the screen, until the block ends: progress is told by the caller."""
    logger = logging.getLogger("ray.data")
    with ray_unwarned():
        context = ray.data.DataContext.get_current()
        before = context.enable_progress_bars, logger.level
        context.enable_progress_bars = False
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            context.enable_progress_bars = before[0]
            logger.setLevel(before[1])


def first_line(error: BaseException) -> str:
    """What an error says, as far as it fits a line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
