"""A suspect, or a control, behind an OpenAI-compatible endpoint, known by ``/completions`` alone.

The only module of the audit that opens connections, and only to the address that the user wrote. Every request and its
answer are kept, the key never is: it is read from an environment variable and sent in one header. Redirects are not
followed, for a key that was meant for one host must not reach another.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from danlu.audit.speaker import SpeakerTask
from danlu.core.errors import DanluError, UsageError

__all__ = ["Endpoint", "is_address", "is_here"]

_SECONDS = 60.0
"""How long an answer may take."""
_TRIES = 5
_WAITS = 1.0
"""Seconds before the second try; twice as long before every further one."""
_LONGEST_WAIT = 60.0
_MOST_BYTES = 2**24
_SHOWN = 200
"""Characters of a server's own words that are told."""
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses after which the same request may succeed."""
_TRIED = 8
"""Texts that may be refused before it is said that all would be."""
_NO_PROMPT = "the endpoint does not give the log-probabilities of a prompt (echo with logprobs)"


def is_address(target: str) -> bool:
    """Whether a word of the command line is the address of an endpoint."""
    return urlsplit(target).scheme in ("http", "https")


def is_here(address: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Endpoint:
    """A model behind an endpoint; see :class:`danlu.audit.speaker.Speaker`.

    Args:
        address: Its address, up to ``/v1``.
        model: What the server calls the model.
        key_env: The environment variable that holds the key; None: no key is sent.
        heard: Told how many of how many requests are done.

    Attributes:
        transcript: Every request and its answer, in order.

    Raises:
        UsageError: The address or the key cannot be used.
    """

    def __init__(
        self,
        address: str,
        model: str,
        key_env: str | None = None,
        heard: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        self.name = model
        self.task: SpeakerTask = "language-modelling"
        self.transcript: list[dict[str, Any]] = []
        self._address = _checked(address)
        self._key = _key(self._address, key_env)
        self._heard = heard
        proxies = [urllib.request.ProxyHandler({})] if is_here(address) else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The text of the token that follows each beginning of a text, the most likely one.

        Raises:
            DanluError: The endpoint cannot be reached, or does not answer as it should.
        """
        found = []
        for number, prompt in enumerate(questions):
            choice = self._choice({"prompt": prompt, "max_tokens": 1, "temperature": 0})
            found.append(choice["text"])
            self._heard(number + 1, len(questions))
        return found

    def losses(self, texts: Sequence[str], labels: Sequence[str] | None = None) -> npt.NDArray[np.float64] | str:
        """float64 [n]: the nats that each text costs after its first token; or why the endpoint does not tell.

        A text that the endpoint does not take, because it is longer than its model sees, costs NaN.

        Raises:
            DanluError: It cannot be reached, or does not answer as it should.
        """
        assert labels is None, "an endpoint names no classes"
        found, n_new = np.full(len(texts), np.nan), None
        for number, text in enumerate(texts):
            try:
                if n_new is None:
                    choice, n_new = self._echoed_first(text)
                else:
                    choice = self._echoed(text, n_new)
            except _BadRequestError as error:
                if n_new is None and number + 1 == min(_TRIED, len(texts)):
                    return f"{_NO_PROMPT}: {error.what}"
                continue
            nats = _nats(choice, text, n_new)
            if nats is None:
                return _NO_PROMPT
            found[number] = nats
            self._heard(number + 1, len(texts))
        return found

    def _echoed_first(self, text: str) -> tuple[dict[str, Any], int]:
        """An echoed text, and how many tokens the server has to be asked to write after it: some always write one."""
        try:
            return self._echoed(text, 0), 0
        except _BadRequestError:
            return self._echoed(text, 1), 1

    def _echoed(self, text: str, n_new: int) -> dict[str, Any]:
        return self._choice({"prompt": text, "temperature": 0, "echo": True, "logprobs": 1, "max_tokens": n_new})

    def _choice(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The one choice of an answer."""
        body = {"model": self.name, **asked}
        answered = self._posted(json.dumps(body, ensure_ascii=False).encode())
        choices = answered.get("choices") if isinstance(answered, dict) else None
        if not (isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict)):
            raise self._wrong("its answer has not the one choice that was asked for")
        if not isinstance(choices[0].get("text"), str):
            raise self._wrong("its choice has no text")
        kept = {name: answered[name] for name in ("model", "choices", "usage") if name in answered}
        self.transcript.append({"asked": body, "answered": kept})
        return dict(choices[0])

    def _posted(self, body: bytes) -> Any:
        wait = _WAITS
        for left in reversed(range(_TRIES)):
            try:
                return self._once(body)
            except _PassingError as passing:
                if not left:
                    raise passing.error from None
                time.sleep(min(_LONGEST_WAIT, wait if passing.after is None else passing.after))
                wait *= 2
        raise AssertionError("the last try returns or raises")

    def _once(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(f"{self._address}/completions", body, headers)  # noqa: S310 (checked before)
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                content = answer.read(_MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except urllib.error.URLError as error:
            raise self._unreached(error.reason) from None
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            raise self._unreached(error) from None
        if len(content) > _MOST_BYTES:
            raise self._wrong(f"its answer has more than {_MOST_BYTES >> 20} MiB")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise self._wrong(f"its answer is not JSON: {self._words(content)}") from None

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        """What a status that is no success means."""
        with error:
            words = self._words(error.read(_MOST_BYTES))
        said = f" ({words})" if words else ""
        if error.code in (401, 403):
            what = "refuses the key" if self._key else "asks for a key"
            advice = "put the key into an environment variable, and give its name as key_env=NAME"
            return UsageError(f"the endpoint {what}{said}", where=self._address, advice=advice)
        if error.code == 404:
            what = f"the endpoint has no model {self.name!r}, or no /completions{said}"
            advice = "give the address up to /v1, and model=NAME as the server's list of models has it"
            return UsageError(what, where=self._address, advice=advice)
        if error.code in (400, 422):
            return _BadRequestError(f"the endpoint does not understand the request{said}", where=self._address)
        if 300 <= error.code < 400:
            advice = f"if you trust it, give that address: {error.headers.get('Location')}"
            return DanluError("the endpoint sends us to another address", where=self._address, advice=advice)
        if error.code == 429:
            what, advice = f"the endpoint takes no more requests now{said}", "wait, or ask fewer texts: texts=N"
        else:
            what, advice = f"the endpoint fails with status {error.code}{said}", "look into the server's log"
        found = DanluError(what, where=self._address, advice=advice)
        return _PassingError(found, error.headers.get("Retry-After")) if error.code in _PASSING else found

    def _unreached(self, reason: object) -> Exception:
        """What a connection that did not come about means."""
        if isinstance(reason, socket.gaierror):
            host = urlsplit(self._address).hostname
            advice = "look for a slip in the address"
            return UsageError(f"no host is called {host}: {reason.strerror}", where=self._address, advice=advice)
        if isinstance(reason, ConnectionRefusedError):
            what, advice = "nothing answers at this address", "start the server, or look for a slip in the port"
            return DanluError(what, where=self._address, advice=advice)
        if isinstance(reason, TimeoutError):
            found = DanluError(f"the endpoint has not answered in {_SECONDS:.0f} seconds", where=self._address)
            return _PassingError(found, None)
        found = DanluError(f"the endpoint cannot be reached: {reason}", where=self._address)
        return _PassingError(found, None) if isinstance(reason, ConnectionError | http.client.HTTPException) else found

    def _wrong(self, what: str) -> DanluError:
        advice = "give the address of an OpenAI-compatible endpoint, up to /v1"
        return DanluError(f"not an endpoint that danlu can ask: {what}", where=self._address, advice=advice)

    def _words(self, content: bytes) -> str:
        """The beginning of what a server says, without the key, should it repeat that."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
            text = str(found["error"]["message"])
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._key else text)[:_SHOWN]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        """A redirect stays the error that it came as."""


class _BadRequestError(DanluError):
    """The server does not understand what is asked for."""


class _PassingError(Exception):
    """Something that may pass; ``after``: seconds that the server asks to wait."""

    def __init__(self, error: DanluError, after: str | None) -> None:
        super().__init__(error.what)
        self.error = error
        self.after = float(after) if after is not None and after.isascii() and after.isdigit() else None


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if not parts.hostname:
        raise UsageError("there is no host in this address", where=address, advice="give scheme, host and path")
    if parts.username or parts.password or parts.query or parts.fragment:
        advice = "give the address up to /v1 alone; a key goes into an environment variable: key_env=NAME"
        raise UsageError("an endpoint's address has no user, password, query or fragment", advice=advice)
    return address.rstrip("/")


def _key(address: str, variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        what = f"the environment variable {variable} holds no key"
        raise UsageError(
            what, where="key_env", advice=f"set it, for instance by: read -rs {variable}; export {variable}"
        )
    if urlsplit(address).scheme != "https" and not is_here(address):
        what = "a key would travel in the clear"
        raise UsageError(what, where=address, advice="give an address of the scheme https, or leave out key_env")
    return key


def _nats(choice: dict[str, Any], text: str, n_new: int) -> float | None:
    """What an echoed text costs; None: the answer does not say."""
    logprobs = choice.get("logprobs")
    found = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not choice["text"].startswith(text) or not isinstance(found, list):
        return None
    known = [each for each in found[: len(found) - n_new] if each is not None]
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in known):
        return None
    return None if not known and len(text) > 1 else -float(sum(known))
