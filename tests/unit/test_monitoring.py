"""``danlu monitor``: drift that was planted is found and named, none is found where there is none, nothing twice."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from danlu.cli import main
from danlu.core.artifact import Artifact
from danlu.core.errors import BusyError, DataError, UsageError
from danlu.core.events import EventLog, read_events
from danlu.core.files import lock
from danlu.data.clean import CleanConfig
from danlu.data.stage import read_split
from danlu.model.predictor import Predictor
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression
from danlu.monitor.records import Record
from danlu.monitor.series import Series
from danlu.monitor.signals import MINIMUM
from danlu.monitor.watch import reference_windows
from danlu.monitor.yardstick import Yardstick
from danlu.monitoring import Monitored, monitor
from danlu.reference import Reader, Reference
from made_traffic import SINCE, Traffic, fresh_texts, other_texts, pictures, traditional, with_typos
from page_tree import check_both_languages, check_self_contained
from small import Listener, made_up

WINDOW = 20
USUAL = fresh_texts(5 * WINDOW, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    return Traffic(tmp_path_factory.mktemp("made"))


@pytest.fixture
def traffic(made: Traffic, tmp_path: Path) -> Traffic:
    return made.copied(tmp_path)


def watch(traffic: Traffic, *words: str, listener: Listener | None = None) -> Monitored:
    return monitor(traffic.workspace, "tiny", words, listener or Listener())


def events(traffic: Traffic, event: str) -> list[dict[str, Any]]:
    return [each for each in read_events(traffic.workspace.events) if each["event"] == event]


def signals(found: Monitored) -> dict[str, dict[str, Any]]:
    return {each["signal"]: each for series in found.facts["series"].values() for each in series["signals"]}


def alarmed(found: Monitored) -> set[str]:
    return {alert["signal"] for alert in found.facts["alerts"]}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (other_texts, {"characters", "unknown", "length", "embedding"}),
        (lambda n, seed: with_typos(fresh_texts(n, seed), 0.2, seed), {"characters", "unknown", "embedding"}),
        (lambda n, seed: traditional(fresh_texts(n, seed)), {"characters", "unknown", "embedding"}),
    ],
    ids=["another domain", "typos", "traditional characters"],
)
def test_a_change_of_what_is_asked_is_found_and_named(traffic: Traffic, change: Any, first: set[str]) -> None:
    traffic.ask(USUAL)
    before = watch(traffic)
    assert alarmed(before) == set()
    traffic.ask(change(15 * WINDOW, 2))
    listener = Listener()
    after = watch(traffic, listener=listener)
    assert alarmed(after) & first
    assert not alarmed(after) & {"latency", "failures"}
    assert all(alert["window"] > 5 and alert["excess"] >= MINIMUM[alert["signal"]] for alert in after.facts["alerts"])
    assert sum(note.startswith("ALERT tiny: ") for note in listener.notes) == len(after.facts["alerts"])
    (page,) = after.artifact.path.glob("monitoring.html")
    assert "Alarm: " in page.read_text()
    inputs = {text for event in events(traffic, "request")[len(USUAL) :] for text in event["inputs"]}
    shown = [each["text"] for each in after.facts["unlike"]]
    assert sum(text in inputs for text in shown) > len(shown) / 2, "most of the most unlike requests are changed ones"


def test_a_slow_server_and_a_failing_one_are_found(traffic: Traffic) -> None:
    usual = fresh_texts(20 * WINDOW, 3)
    traffic.ask(usual[: 19 * WINDOW])
    early = watch(traffic)
    assert signals(early)["latency"]["p_adjusted"] is None
    assert early.facts["series"]["service"]["n_missing"] == 1
    traffic.ask(usual[19 * WINDOW :])
    traffic.ask(fresh_texts(12 * WINDOW, 4), seconds=0.05)
    assert alarmed(slow := watch(traffic)) == {"latency"}
    assert signals(slow)["latency"]["alarm_at"] > 20
    traffic.write([{"route": "/predict", "status": 503, "seconds": 0.001}] * (20 * WINDOW))
    assert alarmed(watch(traffic)) == {"latency", "failures"}


def test_nothing_changes_and_nothing_is_said(made: Traffic, tmp_path: Path) -> None:
    """Twenty watches of fifteen windows over traffic like the reference; in real use these would be twenty lives."""
    traffic = made.copied(tmp_path)
    watch(traffic)
    (artifact,) = traffic.workspace.all("reference")
    reference = Reference.open(artifact)
    reader, level = Reader(traffic.predictor), 0.05
    asked = [
        Record(0.0, "r", 0, text, traffic.predictor.classes[int(row.argmax())], round(float(row.max()), 6))
        for text, row in _answered(traffic, fresh_texts(900, 5))
    ]
    live = reader.columns(asked, reference.characters)
    n_alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        row_B = rng.permutation(len(reference.columns))
        columns, correct_B = reference.columns.take(row_B), reference.correct_B
        assert correct_B is not None
        base_B, windows = reference_windows(len(columns), WINDOW, None)
        yardstick = Yardstick(columns.take(base_B), correct_B[row_B][base_B])
        usual = [yardstick.effects(columns.take(window)) for window in windows]
        effects = {name: [each[name] for each in usual] for name in yardstick.names}
        series = Series(yardstick.names, effects, dict.fromkeys(MINIMUM, 0.0), level, 1.0, seed)
        order_B = rng.permutation(len(live))
        states = [
            state
            for start in range(0, 15 * WINDOW, WINDOW)
            for state in series.add(yardstick.effects(live.take(order_B[start : start + WINDOW])))
        ]
        n_alarms += any(state.alarm for state in states)
    assert n_alarms <= 3  # with a chance of 0.05 each, 4 or more of 20 come in 1.6% of cases


def _answered(traffic: Traffic, texts: list[str]) -> list[tuple[str, np.ndarray]]:
    return list(zip(texts, traffic.predictor.predict_proba(texts), strict=True))


def test_looking_again_changes_nothing_and_looking_late_sees_the_same(made: Traffic, tmp_path: Path) -> None:
    early, late = made.copied(tmp_path / "a"), made.copied(tmp_path / "b")
    parts = [USUAL, other_texts(7 * WINDOW + 11, 6), other_texts(4 * WINDOW, 7)]
    for part in parts:
        for traffic in (early, late):
            traffic.ask(part)
        found = watch(early)
    written = len(list(read_events(early.workspace.events)))
    again = watch(early)
    assert (again.artifact.digest, again.n_new) == (found.artifact.digest, 0)
    assert len(list(read_events(early.workspace.events))) == written
    assert len(list(early.workspace.all("reference"))) == 1
    assert len(events(early, "alert")) == len(alarmed(again)) > 0
    assert {each["number"] for each in events(early, "window") if each["series"] == "content"} == set(range(1, 17))
    at_once = watch(late)
    assert at_once.facts["series"] == again.facts["series"]
    assert [alert["id"] for alert in at_once.facts["alerts"]] == [alert["id"] for alert in again.facts["alerts"]]
    assert at_once.facts["unlike"] == again.facts["unlike"]


def test_inputs_that_were_not_kept_are_counted_and_said(traffic: Traffic) -> None:
    traffic.ask(USUAL[:45], inputs=None)
    traffic.ask(USUAL)
    traffic.write([{"route": "/explain", "status": 200, "seconds": 9.0, "inputs": ["好"]}] * 40)
    traffic.write([{"route": "/predict", "status": 400, "seconds": 0.001, "inputs": ["好"]}] * 40)
    found = watch(traffic)
    series = found.facts["series"]
    assert (series["content"]["n_without"], series["content"]["n_windows"]) == (45, 5)
    assert found.facts["n_requests"] == 45 + len(USUAL) + 40
    assert found.facts["n_failed"] == 0
    assert "45 inputs were answered and not kept" in (found.artifact.path / "monitoring.html").read_text()


def test_settings_are_those_that_the_watch_began_with(traffic: Traffic) -> None:
    traffic.ask(USUAL)
    watch(traffic, "level=0.01", "minimum.length=0.5", "window=25")
    assert watch(traffic).facts["watch"]["level"] == 0.01
    watch(traffic, "window=25", "level=0.01")
    for words in (["level=0.05"], ["window=30"], ["minimum.length=0.1"], ["after=2026-11-01"]):
        with pytest.raises(UsageError, match="this watch began with"):
            watch(traffic, *words)
    with pytest.raises(UsageError, match="why is a new watch begun"):
        watch(traffic, "reset=true")
    assert len(events(traffic, "watch")) == 1


def test_a_handled_alarm_ends_a_watch_and_another_begins(traffic: Traffic) -> None:
    traffic.ask([*USUAL, *other_texts(12 * WINDOW, 8)])
    assert alarmed(watch(traffic))
    again = watch(traffic, "reset=true", "why=the importer was mended", "after=2026-09-21T15:00:00")
    assert alarmed(again) == set()
    assert again.facts["watch"]["number"] == 2
    assert again.facts["series"]["content"]["n_windows"] == 0
    assert "begun because: " in (again.artifact.path / "monitoring.html").read_text()
    assert again.facts["watch"]["start"] > SINCE + 510
    traffic.now = again.facts["watch"]["start"]
    traffic.ask(USUAL)
    assert watch(traffic).facts["series"]["content"]["n_windows"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["minimum.lenght=1"], "no signal 'lenght'"),
        (["minimum.length=-1"], "below 0"),
        (["window=10"], "window"),
        (["window=40"], "20 reference windows of"),
        (["level=1"], "level"),
        (["webhook=ftp://example.org/x"], "scheme http or https"),
        (["folow=true"], "folow"),
    ],
)
def test_bad_settings_are_refused_and_begin_nothing(traffic: Traffic, words: list[str], message: str) -> None:
    with pytest.raises((UsageError, DataError), match=message):
        watch(traffic, *words)
    assert events(traffic, "watch") == []


def test_too_small_a_test_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test records make 20 reference windows of") as refused:
        watch(Traffic(tmp_path, n=300))
    assert "600 records or more" in str(refused.value)


def test_a_model_without_data_is_refused(traffic: Traffic) -> None:
    with traffic.workspace.create("model", "bare", key="2", config={}, parents={}) as draft:
        traffic.predictor.save(draft.folder)
    traffic.workspace.ledger.set_alias("bare", "champion", draft.artifact, reason="a test")
    with pytest.raises(UsageError, match="does not say what data"):
        monitor(traffic.workspace, "bare", [], Listener())


def test_one_watches_at_a_time(traffic: Traffic) -> None:
    path = traffic.workspace.root / "monitor" / f"{traffic.model.digest[:12]}.lock"
    with lock(path, holder="it"), pytest.raises(BusyError):
        watch(traffic)


# What is not a classifier of texts


def test_pictures_that_grow_dark_are_found(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path, "image-classification")
    traffic.ask(pictures(5 * WINDOW, 1))
    assert alarmed(watch(traffic)) == set()
    traffic.ask(pictures(12 * WINDOW, 2, shade=1))
    found = watch(traffic)
    assert {"brightness", "contrast"} & alarmed(found)
    assert {"confidence", "classes", "embedding", "accuracy"} < signals(found).keys()
    html = (found.artifact.path / "monitoring.html").read_text()
    check_self_contained(html)
    assert html.count("data:image/png") > 3


def test_a_simple_model_has_the_signals_that_need_no_network(tmp_path: Path) -> None:
    texts, labels = zip(*made_up(200, 7), strict=True)
    answerer = TfidfLogisticRegression(TfidfConfig()).fit(texts, np.array([label == "good" for label in labels], int))
    predictor = Predictor(answerer, "text-classification", "tfidf-lr", CleanConfig(), ("bad", "good"))
    traffic = Traffic(tmp_path, predictor=predictor)
    traffic.ask([*USUAL, *traditional(other_texts(12 * WINDOW, 3))])
    found = watch(traffic)
    content = [signal["signal"] for signal in found.facts["series"]["content"]["signals"]]
    assert content == ["length", "confidence", "characters", "classes", "accuracy"]
    assert {"length", "characters"} <= alarmed(found)
    assert found.facts["accuracy"]["reference"] > 0.9
    _, low, high = found.facts["accuracy"]["series"][0]
    assert low < found.facts["accuracy"]["reference"] < high + 0.02
    assert found.facts["auc"] is None
    assert all(len(each["text"]) >= 30 for each in found.facts["unlike"])


def test_a_translator_is_watched_by_what_it_is_given(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path, "translation")
    traffic.ask([*USUAL, *other_texts(12 * WINDOW, 3)])
    found = watch(traffic)
    assert set(signals(found)) == {"length", "unknown", "characters", "latency", "failures"}
    assert {"length", "unknown"} & alarmed(found)
    html = (found.artifact.path / "monitoring.html").read_text()
    check_self_contained(html)
    check_both_languages(html)


def test_a_writer_is_compared_with_its_own_first_prompts(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path, "language-modelling", n=60)

    def asked(texts: list[str], written: int, seed: int) -> list[dict[str, Any]]:
        draw = np.random.default_rng(seed)
        route = {"route": "/v1/completions", "status": 200, "seconds": 0.2, "prompt_tokens": 9}
        return [{**route, "inputs": [text], "completion_tokens": int(draw.poisson(written))} for text in texts]

    traffic.write(asked(fresh_texts(200, 1), 12, 1))
    early = watch(traffic, "window=20")
    assert early.facts["series"]["content"]["n_missing"] == 20
    assert [each["p_adjusted"] for each in early.facts["series"]["content"]["signals"]] == [None] * 4
    traffic.write(asked(fresh_texts(420, 2), 12, 2))
    assert watch(traffic).facts["series"]["content"]["n_missing"] == 0
    traffic.write(asked(fresh_texts(300, 3), 30, 3))
    found = watch(traffic)
    assert alarmed(found) == {"written"}
    assert "latency" in signals(found)
    check_both_languages((found.artifact.path / "monitoring.html").read_text())


def learner(traffic: Traffic, key: str = "2") -> Artifact:
    """The model as one that learnt other texts from feedback, promoted: its test split is the old one."""
    workspace, before = traffic.workspace, traffic.model.manifest["parents"]["dataset"]
    dataset = workspace.with_digest(before)
    rows = {"text": other_texts(60, 9), "label": ["good", "bad"] * 30}
    with workspace.create("gold", "tiny", key=key, config=dataset.config, parents={}) as draft:
        schema = pq.read_schema(dataset.path / "test.parquet")
        table = pa.table({name: rows.get(name, [None] * 60) for name in schema.names}, schema=schema)
        pq.write_table(table, draft.folder / "test.parquet")
    gold = draft.artifact
    parents = {"dataset": before, "gold": gold.digest}
    with workspace.create("dataset", "tiny", key=key, config=dataset.config, parents=parents) as draft:
        for file in dataset.path.iterdir():
            if file.name != "manifest.json":
                shutil.copyfile(file, draft.folder / file.name)
    learnt = {"dataset": draft.artifact.digest}
    with workspace.create("model", "tiny", key=key, config={"learnt": key}, parents=learnt) as draft:
        traffic.predictor.save(draft.folder)
    workspace.ledger.set_alias("tiny", "champion", draft.artifact, reason="it learnt")
    traffic.model = draft.artifact
    return draft.artifact


def test_who_learnt_from_feedback_is_not_alarmed_by_what_it_learnt(traffic: Traffic) -> None:
    """Its test split holds nothing of the traffic for which it was trained."""
    traffic.ask(other_texts(15 * WINDOW, 2))
    assert "characters" in alarmed(watch(traffic))
    before = traffic.model.manifest["parents"]["dataset"]
    learner(traffic)
    traffic.ask(other_texts(12 * WINDOW, 3))
    early = watch(traffic)
    content = early.facts["series"]["content"]
    assert (content["is_live"], content["n_windows"], content["n_missing"]) == (True, 12, 18)
    assert {each["p_adjusted"] for each in content["signals"]} == {None}
    tested = len(read_split(traffic.workspace.with_digest(before), "test", ["label"]))
    assert early.facts["accuracy"]["n"] == tested + 60, "the test split, and what was held out of the feedback"
    traffic.ask(other_texts(33 * WINDOW, 4))
    later = watch(traffic)
    content = later.facts["series"]["content"]
    assert (content["n_windows"], content["n_missing"]) == (45, 0)
    assert alarmed(later) == set()
    assert {"characters", "confidence", "embedding", "classes"} <= signals(later).keys()
    assert len(later.facts["accuracy"]["series"]) == 35
    check_both_languages((later.artifact.path / "monitoring.html").read_text())
    assert "its own first requests" in (later.artifact.path / "monitoring.html").read_text()
    traffic.ask(fresh_texts(20 * WINDOW, 5))
    assert "characters" in alarmed(watch(traffic)), "another change, and be it back to the test split, is found"


def test_a_watch_goes_on_with_the_reference_that_it_began_with(traffic: Traffic) -> None:
    traffic.ask(USUAL)
    first = watch(traffic)
    log = EventLog(traffic.workspace.events, "monitor")
    (began,) = events(traffic, "watch")
    told = {key: value for key, value in began.items() if key not in ("time", "event")}
    log.write("watch", **{**told, "id": "another", "reference": "0" * 64})
    with pytest.raises(UsageError, match="began with another reference"):
        watch(traffic)
    again = watch(traffic, "reset=true", "why=the reference is another")
    assert again.facts["watch"]["number"] == 3
    assert again.facts["digest"] == first.facts["digest"]


# The command


def test_the_command_tells_it_to_people_and_to_programs(traffic: Traffic, capsys: pytest.CaptureFixture[str]) -> None:
    traffic.ask([*USUAL, *other_texts(12 * WINDOW, 8)])
    words = ["monitor", "tiny", "-w", str(traffic.workspace.root)]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    assert ended.value.code == 0, "an alarm is a finding, and no failure"
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {alert["signal"] for alert in told["alerts"]}
    assert {each["signal"] for each in told["signals"] if each["alarm"]} == {each["signal"] for each in told["alerts"]}
    assert told["n_requests"] == 17 * WINDOW
    assert Path(told["page"]).is_file()
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().out
    assert "ALARM tiny: " in said
    assert "any false alarm ever: 5.00% at most" in said
    assert "not yet: 3 windows to come" in said


# To go on


def test_following_sees_what_comes_until_somebody_stops_it(traffic: Traffic) -> None:
    parts = [USUAL, other_texts(12 * WINDOW, 9)]

    def pause(_: float) -> None:
        if not parts:
            raise KeyboardInterrupt
        traffic.ask(parts.pop(0))

    found = monitor(traffic.workspace, "tiny", ["follow=true"], Listener(), pause)
    assert found.n_new == 2 * 17
    assert alarmed(found)


def test_following_goes_over_to_the_next_champion(traffic: Traffic) -> None:
    traffic.ask(USUAL)
    digests = []

    def pause(_: float) -> None:
        if digests:
            raise KeyboardInterrupt
        dataset = traffic.model.manifest["parents"]
        with traffic.workspace.create("model", "tiny", key="2", config={"n": 2}, parents=dataset) as draft:
            traffic.predictor.save(draft.folder)
        traffic.workspace.ledger.set_alias("tiny", "champion", draft.artifact, reason="better")
        digests.append(draft.artifact.digest)

    found = monitor(traffic.workspace, "tiny", ["follow=true"], Listener(), pause)
    assert [found.facts["digest"]] == digests
    assert {artifact.manifest["parents"]["model"] for artifact in traffic.workspace.all("monitoring")} == {
        traffic.model.digest,
        *digests,
    }


# Webhooks


class Hook(HTTPServer):
    """Takes what is posted, or answers with another status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hooked)
        self.status, self.taken = 200, list[dict[str, Any]]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=very-secret"


class _Hooked(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.status == 200:
            self.server.taken.append({**body, "path": self.path})
        self.send_response(self.server.status)
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [500, 302])
def test_an_alert_waits_for_a_webhook_that_fails_and_comes_once(traffic: Traffic, hook: Hook, status: int) -> None:
    traffic.ask([*USUAL, *other_texts(12 * WINDOW, 8)])
    hook.status, listener = status, Listener()
    found = watch(traffic, f"webhook={hook.address}", listener=listener)
    assert found.unsent == len(alarmed(found)) > 0
    assert hook.taken == []
    assert any("did not take an alert" in note and str(status) in note for note in listener.notes)
    watch(traffic, "reset=true", "why=dealt with")
    hook.status = 200
    for _ in range(2):
        last = watch(traffic, f"webhook={hook.address}")
        assert last.unsent == 0
    assert len(hook.taken) == 1, "what was tried and failed is not lost by a new watch, and is not posted twice"
    assert hook.taken[0]["text"].startswith("tiny: ")
    assert hook.taken[0]["path"] == "/hook?key=very-secret"
    assert {"name", "digest", "signal", "effect", "excess", "p_adjusted", "level", "n", "window"} < hook.taken[0].keys()
    told = [*listener.notes, *(json.dumps(each) for each in read_events(traffic.workspace.events))]
    told += [path.read_text() for path in last.artifact.path.iterdir()]
    told += [path.read_text() for path in found.artifact.path.iterdir()]
    assert not any("very-secret" in each for each in told)


def test_alerts_are_posted_when_they_are_raised(traffic: Traffic, hook: Hook) -> None:
    traffic.ask([*USUAL, *other_texts(12 * WINDOW, 8)])
    found = watch(traffic, f"webhook={hook.address}")
    assert {each["signal"] for each in hook.taken} == alarmed(found)
    assert len(hook.taken) == len(found.facts["alerts"])


def test_the_page_is_whole_and_in_both_languages(traffic: Traffic) -> None:
    for part in ([], USUAL, other_texts(12 * WINDOW, 8)):
        if part:
            traffic.ask(part)
        artifact: Artifact = watch(traffic).artifact
        html = (artifact.path / "monitoring.html").read_text()
        check_self_contained(html)
        assert check_both_languages(html) > 40
        assert "None" not in html
