"""The lazy table: names, ours and other packages', imported when first asked for."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from danlu.core import table
from danlu.core.errors import UsageError
from danlu.core.table import Table

ROWS = {"zebra": "danlu_test_rows:Zebra", "ape": "danlu_test_rows:Ape", "broken": "danlu_test_no_such_module:X"}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    (tmp_path / "danlu_test_rows.py").write_text("class Zebra: pass\nclass Ape: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "danlu_test_rows", raising=False)
    return Table("animal", "danlu.test.animals", ROWS)


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> EntryPoints:
        assert group == "danlu.test.animals"
        named = [("yak", "Yak"), ("zebra", "TheirZebra"), ("cat", "OrderedDict"), ("cat", "OrderedDict")]
        return EntryPoints(EntryPoint(name, f"collections:{what}", group) for name, what in named)

    monkeypatch.setattr(table, "entry_points", entry_points)


def test_nothing_is_imported_before_it_is_asked_for(rows: Table) -> None:
    assert rows.names() == ["zebra", "ape", "broken"]
    assert "danlu_test_rows" not in sys.modules
    assert rows["ape"].__name__ == "Ape"
    assert "danlu_test_rows" in sys.modules


def test_an_unknown_name_suggests_the_nearest(rows: Table) -> None:
    with pytest.raises(UsageError, match="unknown animal 'zebr'") as caught:
        rows["zebr"]
    assert caught.value.advice == "did you mean 'zebra'?"


@pytest.mark.usefixtures("plugged_in")
def test_other_packages_add_rows_and_never_replace_ours(rows: Table) -> None:
    assert rows.names() == ["zebra", "ape", "broken", "cat", "yak"]
    assert rows["cat"].__name__ == "OrderedDict"
    assert rows["zebra"].__name__ == "Zebra"


@pytest.mark.usefixtures("plugged_in")
def test_a_name_of_another_package_is_suggested_too(rows: Table) -> None:
    with pytest.raises(UsageError) as caught:
        rows["yakk"]
    assert caught.value.advice == "did you mean 'yak'?"


def test_a_row_that_cannot_be_imported_is_a_bug_and_not_an_unknown_name(rows: Table) -> None:
    with pytest.raises(ModuleNotFoundError):
        rows["broken"]
