"""What is said where Ray is missing, does not start, would be open to others, or does not answer."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from danlu.core.errors import DanluError, UsageError
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data import ray_cluster
from danlu.data.ray_cluster import connected
from danlu.data.stage import DataConfig, build_dataset
from small import made_up, write_csv


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = dict(os.environ)
    write_csv(tmp_path / "texts.csv", made_up(20))
    with pytest.raises(UsageError, match="the package ray is not installed") as found:
        build_dataset(Workspace(tmp_path / "w"), "tiny", DataConfig(source="texts.csv"), tmp_path, Silent(), "ray")
    assert found.value.advice == "pip install 'danlu[ray]'"
    assert dict(os.environ) == before
    assert [path.name for path in (tmp_path / "w").rglob("*") if path.is_file()] == [".scratch.lock"]


def test_a_cluster_that_nobody_runs_is_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DanluError, match=r"Ray could not be reached: .*refused") as found:
        ray_cluster._start(SimpleNamespace(), address, None)
    assert found.value.where == address
    assert "RAY_ADDRESS" in str(found.value.advice)
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
    with pytest.raises(UsageError, match="does not work through Ray's client"), connected():
        pass


def a_ray(listens_at: str, error: Exception | None = None) -> SimpleNamespace:
    def init(**_options: Any) -> None:
        if error:
            raise error

    return SimpleNamespace(init=init, util=SimpleNamespace(get_node_ip_address=lambda: listens_at))


@pytest.mark.parametrize("address", ["192.0.2.7", "0.0.0.0", "2001:db8::1"])
def test_a_ray_of_our_own_that_others_could_reach_is_refused(address: str) -> None:
    with pytest.raises(DanluError, match=f"Ray listens at {address}"):
        ray_cluster._start(a_ray(address), "local", "/tmp/x")
    for own in ("127.0.0.1", "::1"):
        ray_cluster._start(a_ray(own), "local", "/tmp/x")


def test_a_ray_that_does_not_start_says_why() -> None:
    with pytest.raises(DanluError, match="Ray could not be started: AF_UNIX path") as found:
        ray_cluster._start(a_ray("", OSError("AF_UNIX path length\nand more")), "local", "/tmp/x")
    assert "/tmp/x" in str(found.value.advice)


def test_variables_are_as_before_when_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_A", "1")
    before = dict(os.environ)
    with suppress(ZeroDivisionError), ray_cluster._variables({"DANLU_A": "2", "DANLU_B": "3"}):
        assert (os.environ["DANLU_A"], os.environ["DANLU_B"]) == ("2", "3")
        raise ZeroDivisionError
    assert dict(os.environ) == before
