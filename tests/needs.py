"""What some tests need and a machine may not have: they are left out there, and it is said at the end how to get it."""

from __future__ import annotations

from typing import NoReturn

import pytest

__all__ = ["HOW", "needs"]

HOW = {
    "PostgreSQL": "apt-get install postgresql, then .ci/run; or set DANLU_TEST_POSTGRES to the URL of a server",
    "Chromium": "apt-get install chromium fonts-noto-cjk",
}
"""How to get it."""


def needs(what: str) -> NoReturn:
    """Leave the test out, for want of something.

    Args:
        what: A key of HOW.
    """
    pytest.skip(f"needs {what}")
