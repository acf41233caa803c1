"""A server that is really asked, watched while it serves: what it writes down is what the watch reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from danlu.cli import main
from made_traffic import Traffic, fresh_texts, other_texts
from served import Served, serving

pytestmark = pytest.mark.xdist_group("serve")


def monitored(served: Served, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["monitor", "tiny", *words, "-w", str(served.workspace), "--json"])
    assert ended.value.code == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told


def test_a_drift_of_real_requests_is_found_and_stands_on_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traffic = Traffic(tmp_path)
    with serving(traffic.workspace.root, "tiny@champion", folder=tmp_path / "block") as served:
        texts = [*fresh_texts(60, 1), *other_texts(240, 2)]
        for start in range(0, len(texts), 20):
            assert served.ask("/predict", {"inputs": texts[start : start + 20]}).status == 200
        told = monitored(served, capsys)
        assert told["n_requests"] == 15
        alarms = {alert["signal"] for alert in told["alerts"]}  # type: ignore[attr-defined]
        assert alarms & {"characters", "unknown", "length", "embedding"}
        board = served.ask("/board?model=tiny@champion").json
        assert {each["signal"] for each in board["drift"] if each["alarm"]} == alarms
        assert board["windows"] == 15
        assert sum(bucket["n"] for bucket in board["traffic"]) == 15
        assert set(board["labels"]) <= {"bad", "good"}
