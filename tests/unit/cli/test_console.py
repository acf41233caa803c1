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


FACTS = {
    "loss": 0.41234,
    "valid score": 0.8432,
    "valid accuracy": 0.8434,
    "valid loss": 0.36659,
    "best score": 0.8501,
    "at step": 90,
    "learning rate": 0.0021,
    "tokens/s": 15321.4,
    "memory (MiB)": 412.3,
    "GPU memory (MiB)": 1843.0,
}


@pytest.fixture
def now(monkeypatch):
    """The time, to be moved on by hand."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_for_a_log(capsys, now):
    with console.LinePrinter() as told:
        told.stage(NASTY)
        told.update(1, 10, "records")
        now[0] += 6
        told.update(5, 10, NASTY, {"loss": 0.5, "at step": 3})
        told.update(6, 10, "records")
        now[0] += 6
        told.update(7, None)
        told.note(NASTY)
        told.stage("next")
        told.update(900, 1000)
        now[0] += 10
        told.update(910, 1000, facts=FACTS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        NASTY,
        f"  5/10 (50%)  {NASTY}  0:00:08 left  loss 0.5000 · at step 3",
        "  7",
        f"  {NASTY}",
        "next",
        "  910/1,000 (91%)  0:01:30 left  loss 0.4123 · valid score 0.8432 · valid accuracy 0.8434 · valid loss 0.3666"
        " · best score 0.8501 · at step 90 · learning rate 0.0021 · tokens/s 15,321 · memory (MiB) 412.3"
        " · GPU memory (MiB) 1,843",
    ]


def frame(panel: console.Panel, recorder: Console) -> list[str]:
    """What the panel shows at this moment."""
    recorder.file.truncate(0)
    with recorder.capture() as shown:
        recorder.print(panel._live.get_renderable())
    return shown.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_panel_fits_the_terminal_and_shows_every_fact(now, width):
    recorder = Console(file=io.StringIO(), width=width, color_system=None, emoji=False)
    told = console.Panel(recorder)
    told.stage("train")
    for step in range(120, 161):
        now[0] += 1
        told.update(step, 859, facts=FACTS | {"loss": 8.0 - step / 40})
    lines = frame(told, recorder)
    assert max(map(len, lines)) <= width
    assert "160/859" in lines[0]
    assert "0:11:39 left" in lines[0]  # 699 steps at one a second
    assert lines[1].startswith("  loss 4.000  █")
    assert "▁ 4." in lines[1]
    shown = " · ".join(line.strip() for line in lines[2:])
    assert shown == " · ".join(f"{name} {console.written(value)}" for name, value in list(FACTS.items())[1:])
    assert len(lines) == {60: 6, 80: 5, 120: 4}[width]


def test_a_stage_begins_with_nothing_of_the_one_before(now):
    recorder = Console(file=io.StringIO(), width=80, color_system=None, emoji=False)
    told = console.Panel(recorder)
    told.stage("train")
    for step in (1, 2, 3):
        now[0] += 1
        told.update(step, 10, facts={"loss": 1.0 / step})
    assert "left" in frame(told, recorder)[0]
    told.stage("evaluate")
    assert frame(told, recorder) == []
    told.update(64, None, "records")
    (line,) = frame(told, recorder)
    assert line.rstrip().endswith("records")
    assert "left" not in line
    told.stage("train again")
    told.update(1, 10, facts={"loss": 9.0})
    assert "█" not in "".join(frame(told, recorder))


def test_a_terminal_that_knows_no_unicode_gets_no_curve():
    recorder = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="latin-1"), width=80, color_system=None)
    told = console.Panel(recorder)
    for step in (1, 2, 3):
        told.update(step, 10, facts={"loss": 1.0 / step})
    assert told._live.get_renderable().renderables[1].curve == ""


def test_the_live_panel_keeps_titles_and_notes():
    file = io.StringIO()
    with console.Panel(Console(file=file, force_terminal=True, width=100, emoji=False)) as told:
        told.stage(NASTY)
        told.update(3, 10, NASTY, {NASTY: 1.0})
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
