"""A model behind an endpoint: what it is asked, and every way in which it may fail."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import numpy as np
import pytest

from danlu.audit import endpoint as module
from danlu.audit.endpoint import Endpoint, is_address, is_here
from danlu.core.errors import DanluError, UsageError
from made_endpoint import Answer, Asked, completion, completions, served

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITS", 0.001)
    monkeypatch.setenv("MY_KEY", KEY)


def upper(prompts: object) -> list[str]:
    return [prompt[-1].upper() for prompt in prompts]  # type: ignore[attr-defined]


def lengths(texts: object) -> list[float]:
    return [float(len(text)) for text in texts]  # type: ignore[attr-defined]


def test_next_tokens_and_losses_are_asked_for_and_kept() -> None:
    with served(completions(upper, lengths)) as (address, heard):
        asked = Endpoint(address + "/", "poet", "MY_KEY")
        assert asked.answers(["ab", "春"]) == ["B", "春"]
        losses = asked.losses(["four", "seventh"])
    assert isinstance(losses, np.ndarray)
    assert losses.tolist() == pytest.approx([4, 7])
    assert [each["path"] for each in heard] == ["/v1/completions"] * 4
    assert {each["key"] for each in heard} == {f"Bearer {KEY}"}
    assert heard[0]["max_tokens"] == 1
    assert heard[0]["temperature"] == 0
    told = {name: each for name, each in heard[2].items() if name not in ("path", "key")}
    asking = {"model": "poet", "prompt": "four", "temperature": 0, "max_tokens": 0}
    assert told == {**asking, "echo": True, "logprobs": 1}
    assert [row["asked"]["prompt"] for row in asked.transcript] == ["ab", "春", "four", "seventh"]
    assert KEY not in json.dumps(asked.transcript)


def test_a_server_that_always_writes_a_token_is_asked_for_one_and_it_is_not_counted() -> None:
    def answer(asked: Asked) -> Answer:
        if asked["max_tokens"] == 0:
            return 400, {}, b'{"error": {"message": "max_tokens must be positive"}}'
        logprobs = {"tokens": ["a", "b", "!"], "token_logprobs": [None, -2.0, -99.0]}
        return completion({"text": "ab!", "logprobs": logprobs})

    with served(answer) as (address, heard):
        losses = Endpoint(address, "m").losses(["ab", "ab"])
    assert isinstance(losses, np.ndarray)
    assert losses.tolist() == [2, 2]
    assert [each["max_tokens"] for each in heard] == [0, 1, 1]
    assert {each["key"] for each in heard} == {None}


def test_a_text_that_the_model_cannot_read_whole_is_left_out_and_ends_nothing() -> None:
    def answer(asked: Asked) -> Answer:
        if len(asked["prompt"]) > 4:
            return 400, {}, b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'
        return completions(upper, lengths)(asked)

    with served(answer) as (address, heard):
        losses = Endpoint(address, "m").losses(["too long", "four", "much too long", "two"])
    assert isinstance(losses, np.ndarray)
    assert losses.tolist() == pytest.approx([np.nan, 4, np.nan, 3], nan_ok=True)
    assert [each["max_tokens"] for each in heard] == [0, 1, 0, 0, 0]


def test_a_server_that_refuses_every_text_is_not_asked_all_of_them() -> None:
    with served(lambda _: (400, {}, b'{"error": {"message": "no echo"}}')) as (address, heard):
        assert "no echo" in str(Endpoint(address, "m").losses(["ab"] * 100))
    assert len(heard) == 16


@pytest.mark.parametrize(
    "answer",
    [
        completion({"text": "ab", "logprobs": None}),
        completion({"text": "b", "logprobs": {"token_logprobs": [-1.0]}}),
        completion({"text": "ab", "logprobs": {"token_logprobs": [None, None]}}),
        completion({"text": "ab", "logprobs": {"token_logprobs": [None, "low"]}}),
        completion({"text": "ab", "logprobs": {"token_logprobs": [None, float("-inf")]}}),
        (400, {}, b'{"error": {"message": "echo is not supported"}}'),
        (422, {}, b"no echo"),
    ],
)
def test_a_server_without_the_probabilities_of_a_prompt_says_why_not(answer: Answer) -> None:
    with served(lambda _: answer) as (address, _):
        assert "does not give the log-probabilities of a prompt" in str(Endpoint(address, "m").losses(["ab"]))


FAILURES: dict[str, tuple[Answer, type[DanluError], str]] = {
    "no key": ((401, {}, b"{}"), UsageError, "asks for a key"),
    "model": ((404, {}, b'{"error": {"message": "no such model"}}'), UsageError, r"no model 'm'.*no such model"),
    "bad": ((400, {}, b'{"error": {"message": "what?"}}'), DanluError, r"does not understand.*what\?"),
    "limit": ((429, {"Retry_After": "0"}, b"slowly"), DanluError, r"no more requests now \(slowly\)"),
    "broken": ((500, {}, b"oops"), DanluError, r"status 500 \(oops\)"),
    "moved": ((302, {"Location": "http://192.0.2.1/"}, b""), DanluError, "another address"),
    "no json": ((200, {}, b"<html>hello"), DanluError, "not JSON: <html>hello"),
    "no object": ((200, {}, b"[1]"), DanluError, "not the one choice"),
    "none": ((200, {}, b'{"choices": []}'), DanluError, "not the one choice"),
    "chat": (completion({"message": {"content": "x"}}), DanluError, "no text"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_says_what_it_is(failure: str) -> None:
    answer, kind, words = FAILURES[failure]
    with served(lambda _: answer) as (address, heard), pytest.raises(kind, match=words) as raised:
        Endpoint(address, "m").answers(["ab"])
    assert raised.value.where == address
    assert len(heard) == (5 if failure in ("limit", "broken") else 1), "what may pass is tried again"


def test_what_passes_is_waited_for() -> None:
    answers = iter([(429, {}, b""), (503, {"Retry_After": "0"}, b""), completion({"text": "x"})])
    with served(lambda _: next(answers)) as (address, _):
        assert Endpoint(address, "m").answers(["ab"]) == ["x"]


def test_a_refused_key_is_told_of_and_never_shown() -> None:
    with served(lambda _: (401, {}, f"bad key {KEY}".encode())) as (address, _), pytest.raises(UsageError) as raised:
        Endpoint(address, "m", "MY_KEY").answers(["ab"])
    assert "refuses the key (bad key ***)" in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    monkeypatch.setattr(module, "_TRIES", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(DanluError, match="has not answered in"):
            Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "m").answers(["ab"])
        port = silent.getsockname()[1]
    with pytest.raises(DanluError, match="nothing answers at this address"):
        Endpoint(f"http://127.0.0.1:{port}/v1", "m").answers(["ab"])


def test_a_connection_that_breaks_off_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRIES", 2)

    def answer(_: Asked) -> Answer:
        raise ConnectionAbortedError  # the handler dies, and with it the connection

    with served(answer) as (address, heard), pytest.raises(DanluError, match="cannot be reached"):
        Endpoint(address, "m").answers(["ab"])
    assert len(heard) == 2


def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UsageError, match=r"no host is called models\.invalid"):
        Endpoint("https://models.invalid/v1", "m").answers(["ab"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Endpoint("http:///v1", "m"), "no host"),
        (lambda: Endpoint(f"https://user:{KEY}@models.invalid/v1", "m"), "no user, password"),
        (lambda: Endpoint(f"https://models.invalid/v1?key={KEY}", "m"), "no user, password"),
        (lambda: Endpoint("https://models.invalid/v1", "m", "NO_SUCH_KEY"), "NO_SUCH_KEY holds no key"),
        (lambda: Endpoint("http://models.invalid/v1", "m", "MY_KEY"), "in the clear"),
    ],
)
def test_an_address_or_a_key_that_cannot_be_used(make: Callable[[], Endpoint], words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        make()
    assert KEY not in str(raised.value)


def test_what_an_address_is() -> None:
    assert is_address("http://127.0.0.1:8000/v1")
    assert is_address("https://models.invalid/v1")
    assert not is_address("poetry@champion")
    assert not is_address("folder/of/model")
    assert is_here("http://localhost:8000/v1")
    assert is_here("http://[::1]:8000/v1")
    assert not is_here("http://192.0.2.1/v1")
