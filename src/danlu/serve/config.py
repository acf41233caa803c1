"""How models are served: where, to whom, and how much of it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field

from danlu.core.config import Config

__all__ = ["LimitsConfig", "ServeConfig", "is_loopback"]


class LimitsConfig(Config):
    """The most that a request may ask for, and the most that is held for all of them."""

    body_bytes: int = Field(4 * 2**20, gt=0)
    """Bytes of a request's body."""
    body_seconds: float = Field(20.0, gt=0)
    """How long a request's head may take to arrive, and then its body."""
    json_depth: int = Field(16, gt=0)
    """How deep lists and objects may lie in each other."""
    inputs: int = Field(256, gt=0)
    """Texts or pictures of one request."""
    input_chars: int = Field(100_000, gt=0)
    """Characters of one text."""
    prompt_tokens: int | None = Field(None, gt=0)
    """Tokens of a prompt; null: as many as the model sees."""
    new_tokens: int = Field(2048, gt=0)
    """Tokens that a request may ask for after its prompt."""
    n: int = Field(16, gt=0)
    """Texts that a request may have written, over all of its prompts."""
    logprobs: int = Field(20, ge=0)
    """Tokens whose probabilities are told at each place."""
    stops: int = Field(4, ge=0)
    """Stop strings."""
    queue: int = Field(128, gt=0)
    """Requests that wait for a model or are being answered by it; one more is sent away with Retry-After."""
    seconds: float = Field(120.0, gt=0)
    """How long a request may take in all; it is given up after that."""
    connections: int = Field(512, gt=0)
    """Connections that are open at a time."""


class ServeConfig(Config):
    """How models are served."""

    host: str = "127.0.0.1"
    """The address to listen at. One that is not this machine's own needs a key first."""
    port: int = Field(8000, ge=0, le=65535)
    """The port; 0 takes a free one."""
    hosts: tuple[str, ...] = ()
    """Names by which callers reach this machine, beside its numbers: a request for another host is refused."""
    keys: Path | None = None
    """The file of API keys; null: ``keys.json`` in the workspace."""
    batch_size: int = Field(32, gt=0)
    """Requests that a classifier or a translator answers at a time."""
    batch_wait: float = Field(0.0, ge=0, le=1)
    """Seconds that a request waits for others to share its batch. While a batch is answered, the next one gathers
    anyway; waiting pays on a GPU only."""
    streams: int = Field(32, gt=0)
    """Texts that a model writes at a time: so many places for keys and values are reserved."""
    threads: int | None = Field(None, gt=0)
    """Threads of a model's process; null: the machine's cores, shared by the models, but for one that is left to the
    server by a model whose answers take next to nothing."""
    keep_inputs: bool = True
    """Whether texts, and pictures up to 64 KiB, are written down with their requests. Without them content cannot be
    watched for drift, labelled or learnt from."""
    drain_seconds: float = Field(30.0, ge=0)
    """How long requests under way may go on after SIGTERM."""
    log_level: Literal["warning", "info", "debug"] = "warning"
    """What the server says on stderr."""
    limits: LimitsConfig = LimitsConfig()
    """The most that a request may ask for."""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
