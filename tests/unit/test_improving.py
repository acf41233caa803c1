from __future__ import annotations

import base64
import io
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from danlu import improving
from danlu.core.errors import DanluError, RefusedError, UsageError
from danlu.core.events import read_events
from danlu.core.progress import Silent
from danlu.data.stage import read_split
from danlu.improving import improve
from danlu.model.predictor import load_predictor
from danlu.recording import record
from danlu.reference import reference_of
from danlu.report.stage import write_data_card
from danlu.train.baseline import train_baseline
from danlu.train.ensemble import train_ensemble
from danlu.verifying import verify
from made_feedback import asked, champion, feedback_of, fresh, tell
from small import SCORE, Listener, recipe_text, translated, write_csv

OTHER = {"good": "bad", "bad": "good"}
QUICK = ["evaluate.bootstrap=100", "evaluate.permutations=1000"]


def served(workspace, model, n=300, seed=7):
    """Requests that were answered ``good``, and the truth of each: (request, text, label)."""
    rows = fresh(n, seed)
    ids = asked(workspace, model.digest, [(text, {"label": "good", "probability": 0.6}) for text, _ in rows])
    return [(request, text, label) for request, (text, label) in zip(ids, rows, strict=True)]


def labelled(rows, source="labeller:ann"):
    return [feedback_of(request, source, label=label) for request, _, label in rows]


def facts_of(proposal):
    return proposal.json("proposal.json")


@pytest.fixture
def world(tmp_path):
    return champion(tmp_path, simple="tfidf-lr")


def test_a_model_that_is_not_shown_to_be_worse_is_proposed_with_its_evidence(world):
    workspace, model = world
    tell(workspace, labelled(served(workspace, model)))
    before = len(workspace.ledger.entries())
    proposal = improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent())
    facts = facts_of(proposal)
    assert facts["passed"]
    challenger = workspace.target("tiny@challenger", "model")
    assert workspace.target("tiny@champion", "model").digest == model.digest
    assert facts["models"]["challenger"]["digest"] == challenger.digest != model.digest
    (entry,) = workspace.ledger.entries()[before:]
    assert (entry.alias, entry.digest) == ("challenger", challenger.digest)
    assert entry.evidence[0] == proposal.digest
    assert all(workspace.with_digest(digest) for digest in entry.evidence)
    assert f"learnt from {facts['feedback']['n_used']} records" in entry.reason
    for role in ("test", "gold"):
        (compared,) = facts["judged"][role]["models"]
        assert (compared["a"], compared["b"]) == ("challenger", "champion")
    assert facts["judged"]["gold"]["models"][0]["n"] == facts["gate"]["n"]
    page = (proposal.path / "proposal.html").read_text(encoding="utf-8")
    assert "A new model is proposed" in page
    assert "提议采用新模型" in page
    (told,) = [event for event in read_events(workspace.events) if event["event"] == "improved"]
    assert (told["proposal"], told["passed"]) == (proposal.digest, True)
    assert improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent()).digest == proposal.digest
    assert len(workspace.ledger.entries()) == before + 1
    known = {
        label: reference_of(workspace, each, load_predictor(each), Silent())
        for label, each in (("old", model), ("new", challenger))
    }
    assert [known[label].has_learnt for label in ("old", "new")] == [False, True]
    n_gold = facts["gate"]["n"]
    assert len(known["new"].columns) == len(known["old"].columns) + n_gold, "what was held out of the feedback is there"


def test_the_dataset_is_the_old_one_and_what_was_learnt_and_every_other_record_has_its_reason(world):
    workspace, model = world
    rows = served(workspace, model)
    feedback = [*labelled(rows[:280]), feedback_of(rows[280][0], "user:a", rating=0.1)]
    feedback += [feedback_of(rows[281][0], "user:a", label="no class"), feedback_of("gone", "user:a", label="good")]
    tell(workspace, feedback)
    proposal = improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent())
    old = workspace.with_digest(model.manifest["parents"]["dataset"])
    new = workspace.with_digest(proposal.manifest["parents"]["dataset"])
    assert new.manifest["parents"].keys() == {"dataset", "feedback", "gold"}
    assert new.manifest["parents"]["dataset"] == old.digest
    for name in ("valid.parquet", "test.parquet"):
        assert new.manifest["files"][name] == old.manifest["files"][name]
    before, after = (pq.read_table(each.path / "train.parquet").to_pylist() for each in (old, new))
    assert after[: len(before)] == before
    learnt = after[len(before) :]
    assert all(row["source"].startswith("feedback/feedback-") for row in learnt)
    assert len({row["id"] for row in after}) == len(after)
    truth = {text: label for _, text, label in rows}
    assert all(truth[row["text"]] == row["label"] for row in learnt)
    summary = new.json("summary.json")
    dropped = pq.read_table(new.path / "dropped.parquet").to_pylist()
    of_feedback = [row for row in dropped if row["source"].startswith("feedback/")]
    assert len(learnt) + len(of_feedback) == len(feedback) == summary["feedback"]["n"]
    assert Counter(row["reason"] for row in of_feedback) == summary["feedback"]["dropped"]
    assert summary["feedback"]["dropped"].keys() == {"held_out", "only_rated", "unknown_label", "unknown_request"}
    assert summary["splits"]["train"]["n"] == len(after)
    assert sum(summary["splits"]["train"]["histogram"]["counts"]) == len(after)
    steps = summary["steps"]
    assert steps[0] == {"step": "feedback", "n_in": summary["n_read"], "n_out": steps[1]["n_in"]}
    assert steps[-1]["n_out"] == summary["n_kept"] == sum(summary["splits"][name]["n"] for name in summary["splits"])
    assert summary["leak"]["n_leaks"] == 0
    gold = workspace.with_digest(proposal.manifest["parents"]["set.gold"])
    gold_texts = set(read_split(gold, "test", ["text"]).column("text").to_pylist())
    assert len(gold_texts) == summary["feedback"]["dropped"]["held_out"]
    assert not gold_texts & {row["text"] for row in after}
    lines = (new.path / "feedback.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [each["id"] for each in feedback]
    page = (write_data_card(workspace, new, Silent()).path / "card.html").read_text(encoding="utf-8")
    assert "only_rated" in page
    found = verify(workspace, str(workspace.target("tiny@challenger", "model").path), [], Silent())
    assert [item for item in found.items if item.mark == "wrong"] == []


def flooded(workspace, model):
    """One user in nine gives four fifths of all feedback, and all of it is wrong."""
    rows = served(workspace, model, 800)
    tell(workspace, labelled(rows[:120]))
    tell(workspace, [feedback_of(r, f"user:{n % 8}", label=label) for n, (r, _, label) in enumerate(rows[120:160])])
    tell(workspace, [feedback_of(request, "user:flood", label=OTHER[label]) for request, _, label in rows[160:]])
    return len(rows[160:]) / len(rows)


def test_who_floods_wrong_labels_does_little_harm_and_without_a_quota_would_do_much(world):
    workspace, model = world
    share = flooded(workspace, model)
    assert share == 0.8
    guarded = facts_of(improve(workspace, "tiny", ["held_out=0.6", "quota=0.2", *QUICK], Silent()))
    by_source = {each["source"]: each for each in guarded["sources"]}
    assert 0 < by_source["user:flood"]["n_used"] <= 0.2 * guarded["feedback"]["n_used"]
    assert guarded["feedback"]["dropped"]["quota"] == by_source["user:flood"]["n"] - by_source["user:flood"]["n_used"]
    assert guarded["passed"]
    assert workspace.ledger.resolve("tiny", "challenger") == guarded["models"]["challenger"]["digest"]
    entries = len(workspace.ledger.entries())
    unguarded = facts_of(improve(workspace, "tiny", ["held_out=0.6", "quota=1", *QUICK], Silent()))
    assert unguarded["feedback"]["n_used"] > guarded["feedback"]["n_used"] + 500
    assert unguarded["gate"]["difference"] < -0.2  # what the quota has prevented
    assert not unguarded["passed"]  # and the gold set is the second line: no alias moves
    assert len(workspace.ledger.entries()) == entries


def test_nothing_is_trained_for_too_little_or_without_a_gold_set(world):
    workspace, model = world
    with pytest.raises(RefusedError, match="no feedback"):
        improve(workspace, "tiny", [], Silent())
    rows = served(workspace, model)
    tell(workspace, labelled(rows[:10], "labeller:ann"))
    with pytest.raises(RefusedError, match="are new, and 20 are wanted"):
        improve(workspace, "tiny", [], Silent())
    tell(workspace, [feedback_of(r, f"user:{n % 8}", label=label) for n, (r, _, label) in enumerate(rows[20:90])])
    with pytest.raises(RefusedError, match="no gold set"):
        improve(workspace, "tiny", ["held_out=0"], Silent())
    heard = Listener()
    facts = facts_of(improve(workspace, "tiny", ["held_out=0.5", *QUICK], heard))
    assert any("52 would be needed" in note for note in heard.notes)
    assert facts["gate"]["n"] < 10
    assert not facts["passed"]  # so few gold records show nothing
    assert not any(entry.alias == "challenger" for entry in workspace.ledger.entries())
    assert len(list(workspace.all("model"))) == 2


def test_a_gold_set_is_named_once_and_what_the_champion_was_trained_on_is_left_out_of_it(world, tmp_path, monkeypatch):
    workspace, model = world
    monkeypatch.chdir(tmp_path)
    dataset = workspace.with_digest(model.manifest["parents"]["dataset"])
    seen = read_split(dataset, "train", ["text", "label"]).to_pylist()[:5]
    gold = fresh(160, seed=21)
    write_csv(tmp_path / "gold.csv", [*gold, *[(row["text"], row["label"]) for row in seen], ("好吧", "other")])
    rows = served(workspace, model, 200)
    tell(workspace, labelled(rows[:60]))
    tell(workspace, [feedback_of(r, f"user:{n % 8}", label=label) for n, (r, _, label) in enumerate(rows[60:])])
    tell(workspace, [feedback_of(None, "import:f", label=label, input=text) for text, label in gold[:30]])
    heard = Listener()
    first = improve(workspace, "tiny", ["gold=gold.csv", *QUICK], heard)
    facts = facts_of(first)
    assert facts["gate"]["n"] == 160
    assert any("gold set: 160 of 166 records, not used: leak 5, unknown_label 1" in note for note in heard.notes)
    assert facts["feedback"]["dropped"]["leak"] >= 30  # what is in the gold set is never trained on
    assert facts["judged"].keys() == {"test", "gold", "traffic"}
    held = workspace.with_digest(workspace.ledger.resolve("tiny", "gold"))
    assert held.kind == "gold"
    assert Counter(pq.read_table(held.path / "dropped.parquet")["reason"].to_pylist()) == {
        "leak": 5,
        "unknown_label": 1,
    }
    assert improve(workspace, "tiny", QUICK, Silent()).manifest["parents"]["set.gold"] == held.digest


def test_feedback_is_judged_anew_each_time_so_that_what_is_outvoted_later_is_unlearnt(world):
    workspace, model = world
    rows = served(workspace, model)
    tell(workspace, labelled(rows[:200]))
    users = [f"user:{n % 8}" for n in range(60)]
    wrong = {request for request, _, _ in rows[200:206]}
    said = [(r, text, OTHER[label] if r in wrong else label) for r, text, label in rows[200:260]]
    tell(workspace, [feedback_of(r, user, label=label) for user, (r, _, label) in zip(users, said, strict=True)])
    improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent())
    second = workspace.target("tiny@challenger", "model")
    workspace.ledger.set_alias("tiny", "champion", second, reason="promoted")
    tell(workspace, labelled(rows[200:206]))
    new = fresh(60, seed=33)
    tell(workspace, [feedback_of(None, "labeller:bo", label=label, input=text) for text, label in new])
    proposal = improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent())
    dataset = workspace.with_digest(proposal.manifest["parents"]["dataset"])
    assert dataset.manifest["parents"]["dataset"] == second.manifest["parents"]["dataset"]
    train = read_split(dataset, "train", ["text", "label"]).to_pylist()
    labels = {row["text"]: row["label"] for row in train}
    assert len(labels) == len(train)
    truth = {text: label for r, text, label in rows if r in wrong}
    learnt = {text: labels[text] for text in truth if text in labels}
    assert learnt
    assert all(truth[text] == label for text, label in learnt.items())
    summary = dataset.json("summary.json")
    assert summary["steps"][-1]["n_out"] == summary["n_kept"]
    assert summary["steps"][0]["n_out"] == summary["steps"][1]["n_in"]


def test_an_improvement_that_was_interrupted_goes_on_with_the_feedback_of_that_time(world, monkeypatch):
    workspace, model = world
    rows = served(workspace, model)
    tell(workspace, labelled(rows[:250]))

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(improving, "again", interrupted)
    with pytest.raises(KeyboardInterrupt):
        improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent())
    monkeypatch.undo()
    tell(workspace, labelled(rows[250:]))  # meanwhile people go on
    heard = Listener()
    proposal = improve(workspace, "tiny", ["held_out=0.5", *QUICK], heard)
    assert any("going on with the improvement" in note for note in heard.notes)
    assert facts_of(proposal)["feedback"]["n"] == 250
    assert facts_of(improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent()))["feedback"]["n"] == 300


def test_a_proposal_beside_another_champion_moves_nothing(world, monkeypatch, tmp_path):
    workspace, model = world
    tell(workspace, labelled(served(workspace, model)))
    real = improving.again
    (tmp_path / "other").mkdir()
    _, other = champion(tmp_path / "other", rows=fresh(120, seed=5), simple="tfidf-lr")

    def overtaken(*arguments):
        workspace.ledger.set_alias("tiny", "champion", other, reason="somebody else promoted")
        return real(*arguments)

    monkeypatch.setattr(improving, "again", overtaken)
    with pytest.raises(RefusedError, match="another champion now"):
        improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent())
    assert not any(entry.alias == "challenger" for entry in workspace.ledger.entries())


def test_wrong_use_is_told_before_anything_is_done(world, tmp_path):
    workspace, model = world
    tell(workspace, labelled(served(workspace, model)))
    for name, words, message in (
        ("tiny@champion", [], "belongs to a name"),
        ("nobody", [], "no model is named"),
        ("tiny", ["quota=0"], "quota"),
        ("tiny", ["qouta=0.5"], "no values to be set"),
        ("tiny", ["train.epochs=2"], "no values to be set"),
        ("tiny", ["gold=none.csv"], "none.csv"),
        ("tiny", ["recipe=none.yaml"], "cannot read"),
    ):
        with pytest.raises(UsageError, match=message):
            improve(workspace, name, words, Silent())
    (tmp_path / "language").mkdir()
    workspace, _ = champion(tmp_path / "language", "language-modelling", simple="5-gram")
    with pytest.raises(UsageError, match="language-modelling is not improved"):
        improve(workspace, "tiny", [], Silent())


def test_pictures_are_corrected_too(tmp_path):
    workspace, model = champion(tmp_path, "image-classification", simple="pixels-lr")
    draw = np.random.default_rng(9)
    pictures = []
    for number in range(200):
        pixels = draw.integers(0, 100, (14, 14), dtype=np.uint8)
        pixels[:, :7] += 120 * (number % 2 == 0)
        pixels[:, 7:] += 120 * (number % 2 == 1)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        pictures.append((base64.b64encode(file.getvalue()).decode(), {"label": str(number % 2)}))
    ids = asked(workspace, model.digest, pictures)
    said = [feedback_of(request, "labeller:ann", correct=True) for request in ids]
    said += [feedback_of(None, "user:a", label="1", input=what) for what in ("no base64!", "bm8gcGljdHVyZQ==")]
    tell(workspace, said)
    proposal = improve(workspace, "tiny", ["held_out=0.4", *QUICK], Silent())
    facts = facts_of(proposal)
    assert facts["passed"]
    assert facts["feedback"]["dropped"].keys() == {"held_out", "broken_image"}
    assert facts["feedback"]["n_used"] + facts["feedback"]["dropped"]["held_out"] == 200
    dataset = workspace.with_digest(proposal.manifest["parents"]["dataset"])
    assert write_data_card(workspace, dataset, Silent())


def test_translations_are_corrected_too(tmp_path):
    workspace, model = champion(tmp_path, "translation", simple="translation-memory")
    rows = fresh(200)
    ids = asked(workspace, model.digest, [(text, {"translation": "X"}) for text, _ in rows])
    pairs = zip(ids, rows, strict=True)
    tell(workspace, [feedback_of(request, "labeller:ann", text=translated(text)) for request, (text, _) in pairs])
    facts = facts_of(improve(workspace, "tiny", ["held_out=0.4", *QUICK], Silent()))
    assert facts["gate"]["metric"] == "chrf"
    assert facts["gate"]["method"] == "bootstrap"
    assert facts["judged"]["gold"]["models"][0]["metrics"]["chrf"]["a"] > 10


def test_a_neural_model_is_trained_again_by_its_own_recipe(tmp_path):
    workspace, model = champion(tmp_path, train={"epochs": 2, "learning_rate": 0.01})
    tell(workspace, labelled(served(workspace, model)))
    improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent())
    challenger = next(each for each in workspace.all("model") if each.digest != model.digest)
    assert challenger.config == model.config
    assert challenger.manifest["parents"].keys() == {"dataset"}
    words = ["held_out=0.5", "train.epochs=1", "model.from=tiny@champion", *QUICK]
    improve(workspace, "tiny", words, Silent())
    tuned = next(each for each in workspace.all("model") if each.config["train"]["epochs"] == 1)
    assert tuned.manifest["parents"]["start"] == model.digest
    for words, message in ((["train.epoch=1"], "epochs"), (["data.source=x"], "not about the training")):
        with pytest.raises(UsageError, match=message):
            improve(workspace, "tiny", ["held_out=0.5", *words], Silent())
    with pytest.raises(DanluError, match="one process"):
        improve(workspace, "tiny", ["held_out=0.5", "train.processes=2"], Silent())
    recipe = tmp_path / "gru.yaml"
    recipe.write_text(recipe_text("gru"), encoding="utf-8")
    improve(workspace, "tiny", ["held_out=0.5", f"recipe={recipe}", "train.epochs=1", *QUICK], Silent())
    assert any(each.json("model.json")["family"] == "gru" for each in workspace.all("model"))
    # Several models as one: each is trained again, here found again, and their weights are fitted anew.
    dataset = workspace.with_digest(model.manifest["parents"]["dataset"])
    simple = train_baseline(workspace, "tiny-tfidf", dataset, "tfidf-lr", SCORE, Silent())
    both = train_ensemble(workspace, "tiny", dataset, {"bert": model, "tfidf-lr": simple}, SCORE, Silent())
    workspace.ledger.set_alias("tiny", "champion", record(workspace, both, Silent()), reason="both are better")
    facts = facts_of(improve(workspace, "tiny", ["held_out=0.5", *QUICK], Silent()))
    made = workspace.with_digest(facts["models"]["challenger"]["digest"])
    assert made.json("model.json")["family"] == "ensemble"
    assert made.manifest["parents"]["bert"] == challenger.digest
    assert made.manifest["parents"]["tfidf-lr"] != simple.digest
