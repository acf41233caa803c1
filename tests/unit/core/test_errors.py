"""Errors that a user can act on."""

from __future__ import annotations

import pytest

from danlu.core.errors import BusyError, CorruptError, DanluError, DataError, RefusedError, UsageError, nearest


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = DataError("the file is empty", where="a.csv", advice="give another")
    assert str(error) == "the file is empty\n  where: a.csv\n  what to do: give another"
    assert str(DataError("the file is empty")) == "the file is empty"


@pytest.mark.parametrize(
    ("kind", "code"),
    [(DanluError, 1), (UsageError, 2), (DataError, 1), (CorruptError, 1), (BusyError, 1), (RefusedError, 3)],
)
def test_exit_codes(kind: type[DanluError], code: int) -> None:
    assert kind("x").exit_code == code
    assert issubclass(kind, DanluError)


def test_nearest() -> None:
    assert nearest("epocs", ["lr", "epochs"]) == "did you mean 'epochs'?"
    assert nearest("qqq", ["lr", "epochs"]) == "known here: epochs, lr"
