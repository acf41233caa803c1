from __future__ import annotations

import pytest

from danlu.core.errors import UsageError
from danlu.evaluate.comparison import CLASSIFICATION
from danlu.evaluate.tasks import TASKS, Task


@pytest.mark.parametrize(
    ("higher_is_better", "difference", "p", "verdict"),
    [
        (True, 0.1, 0.01, "better"),
        (True, -0.1, 0.01, "worse"),
        (False, -0.1, 0.01, "better"),
        (False, 0.1, 0.01, "worse"),
        (True, 0.1, 0.05, "no difference shown"),
        (False, -0.1, 0.2, "no difference shown"),
    ],
)
def test_the_verdict_knows_which_way_is_up(higher_is_better, difference, p, verdict):
    task = Task(
        primary="x", higher_is_better=higher_is_better, evaluate=lambda *_: {"metrics": {}}, compare=lambda *_: {}
    )
    assert task.verdict(difference, p, 0.05) == verdict


def test_every_row_is_there_and_classes_are_judged_alike_for_texts_and_images():
    assert all(isinstance(TASKS[name], Task) for name in TASKS.names())
    assert TASKS["text-classification"] is TASKS["image-classification"] is CLASSIFICATION
    directions = {TASKS[name].primary: TASKS[name].higher_is_better for name in TASKS.names()}
    assert directions == {"macro_f1": True, "bits_per_character": False, "chrf": True}
    with pytest.raises(UsageError, match="translatoin") as error:
        TASKS["translatoin"]
    assert "did you mean 'translation'?" in str(error.value)
