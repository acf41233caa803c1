"""What has to be so for the loop to go on, and what is read out of ``danlu monitor``'s answers."""

from __future__ import annotations

from typing import Any

from loop_driver import LoopError

__all__ = ["content_alarms", "expect", "failures_alarm", "late", "of_content", "shown"]


def expect(true: bool, what: str) -> None:
    """Go on only if something is so.

    Raises:
        LoopError: It is not.
    """
    if not true:
        raise LoopError(f"expected: {what}")


def of_content(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The signals of what was asked and answered, as ``danlu monitor`` tells them."""
    return [each for each in found["signals"] if each["series"] == "content"]


def content_alarms(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of them about which there was an alarm."""
    return [each for each in of_content(found) if each["alarm_at"]]


def failures_alarm(found: dict[str, Any]) -> bool:
    """Whether there was an alarm about failed requests."""
    return any(each["alarm_at"] for each in found["signals"] if each["signal"] == "failures")


def late(found: dict[str, Any]) -> bool:
    """Whether there was an alarm about latency: it hangs on what else this machine does, and fails nothing here."""
    return any(each["alarm_at"] for each in found["signals"] if each["signal"] == "latency")


def shown(share: dict[str, Any]) -> str:
    """A share with its interval."""
    return f"{share['accuracy']:.1%} ({share['low']:.1%} to {share['high']:.1%}, n = {share['n']:,})"
