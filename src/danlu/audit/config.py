"""What ``danlu audit`` is told."""

from __future__ import annotations

from pydantic import Field

from danlu.audit.verdict import ALPHA
from danlu.core.config import Config

__all__ = ["AuditConfig"]


class AuditConfig(Config):
    """How a suspect is audited."""

    against: str
    """The reference: the model that the suspect may be derived from; a folder, name@alias, or a name alone."""
    controls: str | None = None
    """A folder of models that have nothing to do with the reference."""
    siblings: str | None = None
    """A folder of models of the reference's recipe and data, each of another seed."""
    alpha: float = Field(ALPHA, gt=0, lt=1)
    """The chance that a suspect which has nothing to do with the reference is convicted, over all exact tests made."""
