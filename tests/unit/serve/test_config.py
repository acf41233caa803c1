from __future__ import annotations

import pytest
from pydantic import ValidationError

from danlu.core.config import read_overrides, resolve
from danlu.core.errors import UsageError
from danlu.serve.config import ServeConfig, is_loopback


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_which_addresses_are_this_machine_alone(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_nobody_else_can_reach_a_server_by_default() -> None:
    assert is_loopback(ServeConfig().host)
    assert ServeConfig().keys is None


@pytest.mark.parametrize(
    "word", ["limits.n=0", "limits.body_bytes=-1", "port=70000", "batch_wait=nan", "limits.seconds=inf", "streams=0"]
)
def test_a_value_that_makes_no_sense_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        resolve(ServeConfig, [read_overrides([word])])


def test_an_unknown_key_is_refused_and_the_nearest_named() -> None:
    with pytest.raises(UsageError, match="unknown key") as refused:
        resolve(ServeConfig, [read_overrides(["limits.quue=3"])])
    assert "queue" in str(refused.value)
    with pytest.raises(ValidationError):
        ServeConfig(hosst="x")
