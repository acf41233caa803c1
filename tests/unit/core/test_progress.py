"""A stage may talk to nobody."""

from __future__ import annotations

import pytest

from danlu.core.progress import Progress, Silent


def test_silent_is_a_progress_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    listener: Progress = Silent()
    listener.stage("read")
    listener.update(1, None, "fast")
    listener.note("done")
    assert capsys.readouterr() == ("", "")
