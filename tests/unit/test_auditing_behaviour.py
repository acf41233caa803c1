"""Audits by behaviour as the command line makes them: of folders, and of endpoints."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import auditing
from danlu.audit.speaker import LocalSpeaker, open_speaker
from danlu.auditing import audit
from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.model.base import Task
from danlu.recording import record
from danlu.report.audit import audit_page
from danlu.train.order import RunOrder
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from made_endpoint import Answer, Asked, completion, completions, served
from network import no_network
from page_tree import Page
from small import SCORE, made_up, make_dataset, spec_of

FEW = "texts=200"


class Home:
    """A workspace with models of one dataset: the reference, and siblings in a folder of their own."""

    def __init__(self, folder: Path, task: Task, family: str, **train: Any) -> None:
        self.folder = folder
        self.workspace, dataset = make_dataset(folder, made_up(700), task=task)

        def made(seed: int | None) -> Artifact:
            spec = spec_of(folder, family, task=task, seed=seed, train={"epochs": 2, "batch_tokens": 256, **train})
            return train_model(self.workspace, "poet", dataset, spec, Sources(), SCORE, Silent())

        self.reference = made(None)
        self.siblings = folder / "siblings"
        for number in range(3):
            shutil.copytree(made(number).path, self.siblings / str(number))

    def audited(self, suspect: str | Path, *words: str) -> tuple[dict[str, Any], str, Path]:
        given = (f"against={self.reference.path}", FEW, *words)
        found = audit(self.workspace, str(suspect), given, Silent())
        return found.json("audit.json"), (found.path / "audit.html").read_text(encoding="utf-8"), found.path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("language"), "language-modelling", "gpt")


def bilingual(html: str) -> None:
    page = Page(html).root
    english, chinese = ([node for node in page.walk() if node.has_class(name)] for name in ("en", "zh"))
    assert len(english) == len(chinese) > 40
    assert not any(re.search("[一-鿿]", node.text()) for node in english)
    assert not re.search(r"(src|href)=\"(?!#|data:)", html)


def spoken(folder: Path) -> Callable[[Asked], Answer]:
    """A server of the model in a folder."""
    speaker = open_speaker(folder)
    assert isinstance(speaker, LocalSpeaker)
    model = speaker.read()
    speaker = replace(speaker, read=lambda: model)
    return completions(speaker.answers, speaker.losses)  # type: ignore[arg-type]


def test_a_copy_shares_the_mistakes_and_what_was_asked_is_kept(home: Home) -> None:
    facts, html, folder = home.audited(home.reference.path, f"siblings={home.siblings}")
    behaviour = facts["behaviour"]
    assert behaviour["siblings"]["value"] == 1
    assert behaviour["siblings"]["p"] == 1 / 4
    assert behaviour["data_order"]["subtracted"] == "siblings"
    assert behaviour["data_order"]["n"] == 200
    assert behaviour["data_order"]["moved"] == "batches"
    assert {"data order", "siblings by behaviour"} <= facts["p"].keys()
    assert len(behaviour["agreement"]["controls"]) == 3
    assert facts["verdict"] == "PROVEN"
    assert "distilled" not in facts["types"], "its weights are the same"
    bilingual(html)
    assert "What it answers" in html
    assert "the mean loss of 3 siblings" in html
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [row for row in rows if "question" in row]
    assert len(asked) == behaviour["n_questions"]
    assert set(asked[0]["answers"]) == {"suspect", "reference", "sibling 1", "sibling 2", "sibling 3"}
    assert not (folder / "requests.jsonl").exists()


def test_a_sibling_is_not_accused(home: Home) -> None:
    others = home.folder / "others"
    for number in (1, 2):
        shutil.copytree(home.siblings / str(number), others / str(number), dirs_exist_ok=True)
    facts, html, _ = home.audited(home.siblings / "0", f"siblings={others}")
    assert facts["verdict"] in ("NO EVIDENCE", "CONTEXT ONLY")
    assert facts["behaviour"]["beyond"] == []
    bilingual(html)


def test_a_suspect_behind_an_endpoint_is_known_by_its_answers(home: Home) -> None:
    with no_network(), served(spoken(home.reference.path)) as (address, heard):
        facts, html, folder = home.audited(address, "model=secret/poet", f"siblings={home.siblings}")
    behaviour = facts["behaviour"]
    assert behaviour["siblings"]["value"] == 1
    assert isinstance(behaviour["data_order"], dict)
    assert facts["p"].keys() == {"data order", "siblings by behaviour"}
    assert facts["seed"] == "the weights of one of the two are not at hand"
    assert facts["content"] is facts["clones"] is None
    assert facts["suspect"] == {"name": address, "folder": "secret-poet", "model": "secret/poet"}
    manifest = json.loads((record(home.workspace, Artifact.open(folder), Silent()).path / "manifest.json").read_text())
    assert "suspect" not in manifest["parents"]
    assert "reference" in manifest["parents"]
    kept = (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(kept) == len(heard) == 200 + behaviour["n_questions"]
    bilingual(html)
    assert "no weights were seen" in html
    assert "Only answers were at hand" in html


def test_an_endpoint_without_the_probabilities_of_prompts_is_asked_for_next_tokens(home: Home) -> None:
    answer = spoken(home.siblings / "0")

    def next_tokens(asked: Asked) -> Answer:
        return completion({"text": "x"}) if asked.get("echo") else answer(asked)

    with served(next_tokens) as (address, _):
        facts, html, _ = home.audited(address, "model=m", f"siblings={home.siblings}")
    assert "log-probabilities of a prompt" in facts["behaviour"]["data_order"]
    assert facts["p"].keys() == {"siblings by behaviour"}
    assert facts["verdict"] == "NO EVIDENCE"
    assert "there the order of data cannot be tested" in html


def test_a_reference_and_controls_behind_endpoints(home: Home, tmp_path: Path) -> None:
    asked = [f"这个{word}很" for word in "的了我个买就是在到有和也不人都一上说好棒赞喜爱美快优差烂坏假脏慢贵退"]
    (tmp_path / "prompts.txt").write_text("\n".join(asked) + "\n", encoding="utf-8")
    with served(spoken(home.reference.path)) as (address, heard), served(spoken(home.siblings / "1")) as (other, _):
        (tmp_path / "controls.txt").write_text(f"{other} one\n\n{other} two MY_KEY\n")
        words = [f"against={address}", "against_model=a", f"prompts={tmp_path / 'prompts.txt'}"]
        words.append(f"controls={tmp_path / 'controls.txt'}")
        with pytest.raises(UsageError, match="MY_KEY holds no key"):
            audit(home.workspace, str(home.reference.path), words, Silent())
        (tmp_path / "controls.txt").write_text(f"{other} one\n\n{other} two\n")
        found = audit(home.workspace, str(home.reference.path), words, Silent())
    facts = found.json("audit.json")
    assert facts["behaviour"]["agreement"]["value"] == 1
    assert facts["behaviour"]["agreement"]["n_mistakes"] is None
    assert facts["behaviour"]["source"] == "prompts.txt"
    assert facts["controls"] == ["one", "two"]
    assert {each["model"] for each in heard} == {"a"}
    bilingual((found.path / "audit.html").read_text(encoding="utf-8"))


def test_texts_of_the_data_leave_this_machine_only_where_that_was_said(home: Home, tmp_path: Path) -> None:
    away = ("https://192.0.2.1/v1", "model=m")
    with no_network(), pytest.raises(UsageError, match="not sent to another machine"):
        home.audited(*away)
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    with no_network() as tried:
        with pytest.raises(Exception, match="no network here"):
            home.audited(*away, f"prompts={tmp_path / 'prompts.txt'}")
        assert len(tried) == 1, "with prompts of one's own it would be asked"
        tried.clear()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["model=m"], "model is for an endpoint"),
        (["key_env=K"], "key_env is for an endpoint"),
        (["against_model=m"], "against_model is for an endpoint"),
        (["prompts=none.txt"], "cannot read the file"),
        (["prompts=empty.txt"], "the file is empty"),
        (["prompts=bad.jsonl"], "not understood"),
        (["controls=bad.jsonl"], "not understood"),
        (["texts=3"], "texts"),
    ],
)
def test_what_is_asked_wrongly_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"answer": "b"}\n')
    with pytest.raises(UsageError, match=error):
        audit(home.workspace, str(home.reference.path), [f"against={home.reference.path}", *words], Silent())


def test_an_address_needs_a_model(home: Home) -> None:
    with pytest.raises(UsageError, match="may serve several models"):
        home.audited("http://127.0.0.1:9/v1")


def test_prompts_with_their_answers(home: Home, tmp_path: Path) -> None:
    speaker = open_speaker(home.reference.path)
    assert isinstance(speaker, LocalSpeaker)
    asked = [f"这{n}个" for n in range(80)]
    pairs = enumerate(zip(asked, speaker.answers(asked), strict=True))
    rows = [{"prompt": each, "answer": answer if n < 40 else "龘"} for n, (each, answer) in pairs]
    lines = [json.dumps(row, ensure_ascii=False) for row in [*rows, rows[0]]]
    (tmp_path / "asked.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = (f"prompts={tmp_path / 'asked.jsonl'}", f"siblings={home.siblings}")
    behaviour = home.audited(home.siblings / "0", *words)[0]["behaviour"]
    assert behaviour["agreement"]["n"] == 80
    assert behaviour["agreement"]["n_mistakes"] == 40


def test_a_packed_epoch_that_was_cut_short_is_left_out(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = tuple((np.arange(9), np.arange(9, 18)) for _ in range(3))
    monkeypatch.setattr(auditing, "reopened_order", lambda *_: RunOrder(epochs, "root", 6))
    for train, moved, n_epochs in (
        ({}, "batches", 3),
        ({"max_steps": 5}, "batches", 3),
        ({"pack": True}, "records", 3),
        ({"pack": True, "max_steps": 5}, "records", 2),
    ):
        config = {**home.reference.config, "train": train}
        model = Artifact(home.reference.path, {**home.reference.manifest, "config": config})
        dataset = home.workspace.with_digest(model.manifest["parents"]["dataset"])
        seen = auditing._seen(home.workspace, model, dataset, "language-modelling")
        assert not isinstance(seen, str)
        assert (seen.moved, len(seen.epochs)) == (moved, n_epochs)


def test_classifiers_are_asked_for_classes(tmp_path: Path) -> None:
    home = Home(tmp_path, "text-classification", "gru", epochs=1, learning_rate=3e-4)
    facts, html, _ = home.audited(home.siblings / "0", f"siblings={home.siblings}")
    behaviour = facts["behaviour"]
    assert isinstance(behaviour["data_order"], dict)
    assert behaviour["n_questions"] == 200
    bilingual(html)
    cast = auditing._cast(
        (auditing.Party("a", home.reference.path), auditing.Party("b", home.siblings / "0")),
        {"controls": (), "siblings": ()},
    )
    assert not isinstance(cast, str)
    assert set(cast.suspect.answers(["好好好", "差差差"])) <= {"good", "bad"}


def test_what_the_page_says_where_answers_alone_are_strong(home: Home) -> None:
    facts, _, _ = home.audited(home.siblings / "0", f"siblings={home.siblings}")
    far = {"value": 0.6, "siblings": [0.1, 0.12, 0.11], "p": 0.25, "measure": ""}
    agreement = {**facts["behaviour"]["agreement"], "value": 0.7, "controls": [0.1, 0.2, 0.1], "p": 1e-9}
    for beyond, words in (
        (["siblings by behaviour", "agreement"], "repeats mistakes that only"),
        (["agreement"], "answers as"),
    ):
        behaviour = {**facts["behaviour"], "siblings": far, "agreement": agreement, "beyond": beyond}
        strong = {**facts, "verdict": "STRONG", "behaviour": behaviour, "types": ["distilled"]}
        html = audit_page(strong, {})
        assert words in html
        assert "consistent with distillation" in html
        assert "taught by its answers" in html
        bilingual(html)
