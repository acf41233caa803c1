from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from rich.table import Table

from danlu.cli import console
from danlu.core.errors import DataError

NASTY = "data[1].csv [bold]x[/red] :smile: 质量"


def test_text_is_printed_as_it_is(capsys):
    table = Table(box=None)
    table.add_column(NASTY)
    table.add_row(NASTY)
    console.print_text(table)
    console.print_text(NASTY)
    assert capsys.readouterr().out.count(NASTY) == 3


def test_lines_for_a_log(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.LinePrinter() as told:
        told.stage(NASTY)
        told.update(1, 10, "loss 1")
        now[0] += 6
        told.update(5, 10, "loss 0.5")
        told.update(6, 10, "loss 0.4")
        now[0] += 6
        told.update(7, None)
        told.note(NASTY)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [NASTY, "  5/10 (50%)  loss 0.5", "  7", f"  {NASTY}"]


def test_the_live_panel_keeps_titles_and_notes():
    file = io.StringIO()
    with console.Panel(Console(file=file, force_terminal=True, width=100, emoji=False)) as told:
        told.stage(NASTY)
        told.update(3, 10, NASTY)
        told.note(NASTY)
        told.stage("next")
    assert file.getvalue().count("[bold]x[/red] :smile: 质量") >= 2
    assert "next" in file.getvalue()


def test_which_display_is_right_depends_on_where_stderr_goes():
    assert isinstance(console.listener(), console.LinePrinter)


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_says_what_where_and_what_to_do(capsys, as_json):
    console.print_error(DataError("it broke", where="here", advice="mend it"), as_json=as_json)
    captured = capsys.readouterr()
    assert captured.err == "error: it broke\n  where: here\n  what to do: mend it\n"
    expected = {"error": "it broke", "where": "here", "advice": "mend it", "exit_code": 1}
    assert (json.loads(captured.out) if as_json else captured.out) == (expected if as_json else "")


def test_a_number_that_is_none_never_becomes_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json({"x": float("nan")})
