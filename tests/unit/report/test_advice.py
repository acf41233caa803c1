from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from danlu.report import advice
from danlu.report.facts import Facts, gather
from danlu.report.task import TASKS, Advice


def advise(facts: Facts) -> list[Advice]:
    return advice.advise(facts, TASKS[facts.task])


def commands(facts: Facts) -> list[Advice]:
    return advice.commands(facts, TASKS[facts.task])


def facts_of(run: Any) -> Facts:
    facts = gather(
        run.dataset.name,
        run.workspace.root.parent,
        recipe=run.recipe,
        dataset=run.dataset,
        entries=run.entries,
        comparison=run.comparison,
        gate={**run.gate, "passed": True},
        plan=run.plan,
    )
    ours = dataclasses.replace(
        facts.ours, evaluation=copy.deepcopy(facts.ours.evaluation), curve=[{"step": 1, "loss": 0.5}]
    )
    return dataclasses.replace(facts, models=[ours, *facts.models[1:]])


def narrow(facts: Facts) -> None:
    """Make the score known well enough."""
    score = facts.ours.evaluation["metrics"][facts.primary]
    score.update(low=score["value"], high=score["value"])


@pytest.fixture
def calm(run_of: Callable[..., Any]) -> Facts:
    """Facts that give no reason for advice."""
    facts = facts_of(run_of())
    ours = facts.ours
    evaluation: dict[str, Any] = ours.evaluation  # type: ignore[assignment]  (a copy, made to be changed)
    evaluation["calibration"]["p_calibrated"] = 0.5
    evaluation["most_confident_wrong"] = []
    evaluation["slices"]["n_chars"] = []
    evaluation["metrics"]["macro_f1"] |= {"value": 0.9, "low": 0.89, "high": 0.91}
    summary = copy.deepcopy(facts.summary)
    summary["splits"]["train"]["labels"] = {"a": 100, "b": 110}  # type: ignore[index]
    calm = dataclasses.replace(facts, models=[ours, *facts.models[1:]], summary=summary)
    assert advise(calm) == []
    return calm


def only(facts: Facts) -> str:
    (found,) = advise(facts)
    return f"{found.what.en} {found.why.en} {found.command}"


def with_ours(facts: Facts, **changes: Any) -> Facts:
    return dataclasses.replace(facts, models=[dataclasses.replace(facts.ours, **changes), *facts.models[1:]])


def test_train_longer_if_the_last_weights_were_the_best(calm: Facts) -> None:
    training = {**calm.ours.training, "best_step": 1200}
    told = only(with_ours(calm, training=training))
    assert "Train longer" in told
    assert "1,200" in told
    assert told.endswith("danlu run RECIPE.yaml train.epochs=16")


def test_hold_back_if_the_validation_loss_rose(calm: Facts) -> None:
    losses = (0.6, 0.4, 0.5)
    curve = [{"step": step, "valid": {"score": 0.8, "loss": loss}} for step, loss in enumerate(losses)]
    assert "rose from 0.400 to 0.500" in only(with_ours(calm, curve=curve))
    curve[-1]["valid"]["loss"] = 0.42  # type: ignore[index]
    assert advise(with_ours(calm, curve=curve)) == []


@pytest.mark.parametrize(("mean_confidence", "how"), [(0.99, "too sure"), (0.5, "not sure enough")])
def test_uncalibrated(calm: Facts, mean_confidence: float, how: str) -> None:
    calm.ours.evaluation["calibration"].update(p_calibrated=0.001, mean_confidence=mean_confidence)
    calm.ours.evaluation["metrics"]["ece"]["value"] = 0.08
    calm.ours.evaluation["metrics"]["accuracy"]["value"] = 0.9
    assert how in only(calm)
    calm.ours.evaluation["metrics"]["ece"]["value"] = 0.001
    assert advise(calm) == [], "a tiny error is no reason, however certain"


def test_sure_mistakes(calm: Facts) -> None:
    examples = [{"confidence": confidence, "text": "短"} for confidence in (0.99, 0.97, 0.95, 0.6)]
    calm.ours.evaluation["most_confident_wrong"].extend(examples)
    assert "3 of the 4 surest mistakes" in only(calm)


def test_a_weak_slice(calm: Facts) -> None:
    accuracy = calm.ours.metric("accuracy")["low"]
    part = {"name": "120-400", "n": 77, "accuracy": {"value": 0.5, "high": accuracy - 0.01}}
    calm.ours.evaluation["slices"]["n_chars"].append(part)
    assert "120–400 characters" in only(calm)
    part["accuracy"]["high"] = accuracy + 0.01  # type: ignore[index]
    assert advise(calm) == [], "intervals that overlap are no reason"


def test_unequal_classes(calm: Facts) -> None:
    calm.summary["splits"]["train"]["labels"].update(a=10, b=90)
    assert "a</span> It has 10 training texts" in only(calm)


def test_many_dropped(calm: Facts) -> None:
    summary = {**calm.summary, "n_read": 100, "n_dropped": 50, "dropped": {"near_duplicate": 40, "empty": 10}}
    told = only(dataclasses.replace(calm, summary=summary))
    assert "50.0% of what was read was dropped" in told
    assert "nearly the same" in told
    assert told.endswith("/dropped.parquet")
    assert (calm.base / told.split()[-1]).is_file()


def test_a_small_test_split(calm: Facts) -> None:
    calm.ours.evaluation["metrics"]["macro_f1"].update(low=0.85, high=0.95, n=120)
    assert "With 120 test texts, macro F1 is known to about ±5.0 points" in only(calm)


def test_a_refused_gate_says_how_many_texts_it_would_take(calm: Facts) -> None:
    # A difference of half a standard error: (2.8 / 0.5)^2 = 31.4 times the records give 80% power.
    gate = {**calm.gate, "passed": False, "difference": 0.005, "low": 0.005 - 0.0196, "high": 0.005 + 0.0196}
    calm.ours.evaluation["n"] = 1000  # type: ignore[index]
    assert "about 31,000 test texts" in only(dataclasses.replace(calm, gate=gate))
    worse = dataclasses.replace(calm, gate={**gate, "difference": -0.005})
    assert advise(worse) == []


def test_commands_can_be_typed(calm: Facts) -> None:
    calm.ours.evaluation["slowest"].append({"text": "it's\nbad'; rm -rf / #", "confidence": 0.5, "n_chars": 1})
    typed = [each.command for each in commands(calm)]
    assert typed[1:] == ["danlu compare reviews-tfidf-lr@latest reviews@champion", "danlu log"]
    for command in typed:
        assert command is not None
        assert command.count("'") in (0, 2)
        assert "\n" not in command


def test_a_picture_is_named_as_one(run_of: Callable[..., Any]) -> None:
    facts = facts_of(run_of(task="image-classification"))
    facts.ours.evaluation["calibration"]["p_calibrated"] = 0.5
    facts.ours.evaluation["most_confident_wrong"].clear()
    narrow(facts)
    assert advise(facts) == []
    facts.summary["splits"]["train"]["labels"].update({"0": 5, "1": 200})
    assert "Bring more pictures of the class" in only(facts)
    assert commands(facts)[0].command == "danlu predict digits@champion picture.png"


@pytest.fixture
def read(run_of: Callable[..., Any]) -> Facts:
    """Facts of a language model that give no reason for advice."""
    facts = facts_of(run_of(task="language-modelling"))
    facts.ours.evaluation["hardest"].clear()
    narrow(facts)
    assert advise(facts) == []
    return facts


def test_bits_that_rise_on_the_validation_split(read: Facts) -> None:
    curve = [
        {"step": step, "valid": {"score": -bits, "bits_per_character": bits}} for step, bits in enumerate((6, 5, 5.3))
    ]
    assert "bits per character rose from 5.000 to 5.300" in only(with_ours(read, curve=curve))
    curve[-1]["valid"]["bits_per_character"] = 5.05  # type: ignore[index]
    assert advise(with_ours(read, curve=curve)) == []


def test_texts_unlike_all_others(read: Facts) -> None:
    mean = read.ours.metric("bits_per_character")["value"]
    shown = [{"bits_per_character": times * mean, "text": "x"} for times in (2.5, 1.9, 1.6, 1.1)]
    read.ours.evaluation["hardest"].extend(shown)
    assert "3 of the 4 hardest texts listed here need at least 1.5 times" in only(read)
    shown[2]["bits_per_character"] = mean
    assert advise(read) == []


def test_a_slice_that_the_baseline_reads_better(read: Facts) -> None:
    assert read.baseline is not None
    part, other = read.ours.evaluation["slices"]["n_chars"][0], read.baseline.evaluation["slices"]["n_chars"][0]
    part["bits_per_character"].update(value=9.0, low=8.9)
    other["bits_per_character"].update(value=8.0, high=8.8)
    told = only(read)
    assert part["name"].replace("-", "–") in told
    assert "8.000, against 9.000" in told


def test_a_refused_gate_of_bits_says_how_many_texts_it_would_take(read: Facts) -> None:
    gate = {**read.gate, "passed": False, "difference": -0.01, "low": -0.01 - 0.0392, "high": -0.01 + 0.0392}
    read.ours.evaluation["n"] = 1000  # type: ignore[index]
    told = only(dataclasses.replace(read, gate=gate))
    assert "−0.010 bits" in told
    assert "about 31,000 test texts" in told
    more_bits = dataclasses.replace(read, gate={**gate, "difference": 0.01})
    assert advise(more_bits) == []


def test_the_prompt_of_a_language_model_is_a_beginning(read: Facts) -> None:
    read.ours.evaluation["easiest"][0]["text"] = "春眠不觉晓，处处闻啼鸟。"
    assert commands(read)[0].command == "danlu predict poetry@champion '春眠不觉晓，处处'"


def test_lost_placeholders(run_of: Callable[..., Any]) -> None:
    facts = facts_of(run_of(task="translation"))
    narrow(facts)
    kept = {"value": 0.9, "low": 0.85, "high": 0.93, "n": 50}
    human = {"value": 0.98, "low": 0.95, "high": 1.0, "n": 50}
    facts.ours.evaluation["placeholders"][:] = [{"kind": "printf", "kept": kept, "reference": human}]
    facts.ours.evaluation["metrics"]["placeholders_kept"].update(value=0.91, n=60)
    told = only(facts)
    assert "Of 60 test sentences that have any, 91.0% keep them all" in told
    assert "printf: 90.0% are kept, and human translators keep 98.0%" in told
    human["low"] = 0.92
    assert advise(facts) == [], "intervals that overlap are no reason"
