"""Strict configuration: every key is known, every value has an origin.

A config class stands beside the class that it configures, is keyword-only and frozen, and documents each field in the
docstring under it; the JSON schema and ``danlu config show`` take their words from there.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Config"]


class Config(BaseModel):
    """Base of every config: keyword-only, frozen, unknown keys forbidden."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True, protected_namespaces=(),
        allow_inf_nan=False,
    )

    def plain(self) -> dict[str, Any]:
        """The config as plain JSON values, every default filled in."""
        return self.model_dump(mode="json", by_alias=True)
