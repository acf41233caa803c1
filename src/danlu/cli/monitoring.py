"""What ``danlu monitor`` answers: every signal, how far it has moved, and whether that is an alarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from danlu.cli.tables import make_table
from danlu.cli.verb import Answer, Call

if TYPE_CHECKING:
    from danlu.monitoring import Monitored

__all__ = ["monitored"]


def monitored(call: Call, model: str, words: list[str]) -> Answer:
    """Watch a model, and tell how it stands.

    Raises:
        UsageError: No such model, or a setting that is none.
        DanluError: It cannot be watched.
    """
    from danlu.monitoring import monitor

    return _answer(monitor(call.workspace, model, words, call.progress))


def _answer(found: Monitored) -> Answer:
    facts, page = found.facts, str(found.artifact.path / "monitoring.html")
    told = [
        {"series": kind, **_of_signal(signal, series["n_missing"])}
        for kind, series in facts["series"].items()
        for signal in series["signals"]
    ]
    table = make_table("signal", "last", "usual", "above", "p", "")
    for each in told:
        numbers = [each[key] for key in ("effect", "usual", "excess", "p_adjusted")]
        style = "bold red" if each["alarm"] else "dim"
        table.add_row(each["signal"], *map(_number, numbers), Text(each["state"], style))
    content = facts["series"]["content"]
    lines = [
        f"{facts['n_requests']:,} requests; {content['n_windows']:,} windows of {facts['watch']['window']} records, "
        f"{found.n_new:,} windows new; any false alarm ever: {facts['watch']['level']:.2%} at most"
    ]
    if content["n_without"]:
        lines.append(
            f"{content['n_without']:,} inputs were not kept, and so not looked at (danlu serve keep_inputs=true)"
        )
    if content["is_live"]:
        lines.append(
            "what is asked is compared with this model's own first windows: its test split is not what it is asked"
        )
    if content["n_missing"]:
        lines.append(f"content is not watched yet: {content['n_missing']} windows are still to come")
    if facts["accuracy"] and facts["accuracy"]["series"]:
        value, low, high = facts["accuracy"]["series"][-1]
        lines.append(f"estimated accuracy of the last window {value:.1%} [{low:.1%}, {high:.1%}]")
    if found.unsent:
        lines.append(f"{found.unsent} alerts wait for the webhook: the next danlu monitor with it tries again")
    lines += [f"ALARM {alert['message']}" for alert in facts["alerts"]] or ["no alarm"]
    answer: dict[str, Any] = {
        "name": facts["name"],
        "digest": facts["digest"],
        "watch": facts["watch"],
        "n_requests": facts["n_requests"],
        "n_new_windows": found.n_new,
        "signals": told,
        "alerts": facts["alerts"],
        "unsent": found.unsent,
        "page": page,
    }
    return Answer(answer, Group(table, Text("\n" + "\n".join(lines)), Text(page)))


def _of_signal(signal: dict[str, Any], n_missing: int) -> dict[str, Any]:
    if signal["alarm_at"]:
        state = f"alarm at window {signal['alarm_at']}"
    elif signal["p_adjusted"] is None:
        state = f"not yet: {n_missing} windows to come" if n_missing else "no window yet"
    else:
        state = ""
    return {
        "signal": signal["signal"],
        "effect": signal["effects"][-1] if signal["effects"] else None,
        "usual": signal["usual"],
        "excess": signal["excess"],
        "p_adjusted": signal["p_adjusted"],
        "alarm": signal["alarm_at"] is not None,
        "alarm_at": signal["alarm_at"],
        "state": state,
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
