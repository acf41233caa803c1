"""What ``danlu verify`` is told."""

from __future__ import annotations

from pydantic import Field

from danlu.core.config import Config

__all__ = ["VerifyConfig"]


class VerifyConfig(Config):
    """How a record is checked."""

    replay: int = Field(0, ge=0)
    """How many segments of the training to do again, to compare bit for bit; the last hash of its chain draws them."""
    key: str | None = None
    """The public key (PEM) of whom the record is to be by; null: this workspace's key is the one that is known."""
    seeds: str | None = None
    """The run's seeds.json, to open its commitments with; null: the one in the run's folder, where it is."""
