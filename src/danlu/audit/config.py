"""What ``danlu audit`` is told."""

from __future__ import annotations

from pydantic import Field

from danlu.audit.verdict import ALPHA
from danlu.core.config import Config

__all__ = ["AuditConfig"]


class AuditConfig(Config):
    """How a suspect is audited."""

    against: str
    """The reference: the model that the suspect may be derived from; a folder, name@alias, a name alone, or the address
    of an OpenAI-compatible endpoint, up to ``/v1``."""
    controls: str | None = None
    """A folder of models that have nothing to do with the reference; or a file that names endpoints, one a line:
    address, model, and the environment variable with the key where one is due."""
    siblings: str | None = None
    """A folder of models of the reference's recipe and data, each of another seed."""
    parents: str | None = None
    """A folder of other models that the suspect may have been merged from, besides the reference."""
    prompts: str | None = None
    """A file of beginnings of texts that every model is to continue, or of texts to be classified: one a line, or a
    jsonl file with ``prompt`` and, where it is known, ``answer``; null: held-out texts of the reference's data."""
    texts: int = Field(2000, ge=30)
    """The most training texts, and the most questions, that each model is asked."""
    model: str | None = None
    """What the suspect's endpoint calls it."""
    key_env: str | None = None
    """The environment variable that holds the key of the suspect's endpoint."""
    against_model: str | None = None
    """What the reference's endpoint calls it."""
    against_key_env: str | None = None
    """The environment variable that holds the key of the reference's endpoint."""
    send_texts: bool = False
    """Whether texts of the reference's data may be sent to endpoints on other machines."""
    alpha: float = Field(ALPHA, gt=0, lt=1)
    """The chance that a suspect which has nothing to do with the reference is convicted, over all exact tests made."""
