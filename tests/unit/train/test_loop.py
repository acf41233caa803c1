from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from danlu.core.errors import DanluError
from danlu.core.progress import Silent
from danlu.train.checkpoint import Run
from danlu.train.config import TrainConfig
from danlu.train.engine import Engine
from danlu.train.loop import fit
from small import Listener, make_training


def scores_in_turn(*scores):
    """A judge that gives these scores, one after the other."""
    left = iter(scores)
    return lambda _model: {"score": next(left)}


def lines(run):
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


class LoggedRun(Run):
    def __init__(self, folder, log):
        super().__init__(folder, Silent())
        self.log = log

    def save(self, tensors, state):
        self.log.append(("save", state.step))
        super().save(tensors, state)


def test_step_then_save_then_evaluate(tmp_path):
    log = []
    work = make_training()
    batch, evaluate = work.feed.batch, work.evaluate
    work.feed.batch = lambda step: log.append(("step", step)) or batch(step)
    work = dataclasses.replace(work, evaluate=lambda model: log.append(("evaluate",)) or evaluate(model))
    fit(work, LoggedRun(tmp_path, log), Silent())
    half, n = sorted(work.feed.evaluate_after)
    assert n == work.feed.n_steps
    steps = [("step", step) for step in range(n)]
    assert log == [
        ("save", 0),
        *steps[:half],
        ("save", half),
        ("evaluate",),
        *steps[half:],
        ("save", n),
        ("evaluate",),
    ]


def test_the_best_weights_come_back_and_training_stops_when_nothing_gets_better(tmp_path):
    seen = []
    scores = scores_in_turn(0.3, 0.6, 0.5, 0.6, 0.9)
    work = make_training(epochs=5, patience=2)

    def evaluate(model):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return scores(model)

    work = dataclasses.replace(work, evaluate=evaluate)
    fitted = fit(work, Run(tmp_path, Silent()), Silent())
    ends = sorted(work.feed.evaluate_after)
    # 0.6 again is no better: two evaluations in a row without a better one.
    assert (fitted.best_step, fitted.best_score) == (ends[1], 0.6)
    assert (fitted.step, fitted.n_steps) == (ends[3], ends[-1])
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in work.module.state_dict().items())
    assert not all(torch.equal(tensor, seen[3][name]) for name, tensor in work.module.state_dict().items())


def test_a_run_that_stops_early_in_less_than_a_second_still_says_what_it_cost(tmp_path):
    work = make_training(scores_in_turn(0.5, 0.4), epochs=4, patience=1)
    run = Run(tmp_path, Silent())
    fitted = fit(work, run, Silent())
    assert fitted.step < fitted.n_steps
    (*_, last) = [json.loads(line) for line in run.timing.read_text().splitlines()]
    assert last["step"] == fitted.step
    assert 0 < last["n_tokens"] <= last["n_positions"]


def test_training_lowers_the_loss_and_the_curve_holds_every_report(tmp_path):
    work = make_training(epochs=12, patience=12)
    run = Run(tmp_path, Silent())
    fitted = fit(work, run, Silent())
    losses = [line for line in lines(run) if "loss" in line]
    scores = [line for line in lines(run) if "valid" in line]
    assert [line["step"] for line in losses] == list(range(1, fitted.n_steps + 1))
    assert [line["step"] for line in scores] == sorted(work.feed.evaluate_after)
    first, last = ([line["loss"] for line in part] for part in (losses[:5], losses[-5:]))
    assert sum(last) / 5 < sum(first) / 5 - 0.05
    assert losses[-1]["learning_rate"] < max(line["learning_rate"] for line in losses) / 20


def test_a_long_curve_has_two_hundred_points_or_so_each_a_mean(tmp_path):
    work = make_training(scores_in_turn(*range(11)), epochs=11, batch_tokens=16)
    taken = []
    run = Run(tmp_path, Silent())
    batch = work.feed.batch
    work.feed.batch = lambda step: taken.append(step) or batch(step)
    fit(work, run, Silent())
    losses = [line for line in lines(run) if "loss" in line]
    assert len(taken) == 11 * 40
    assert [line["step"] for line in losses] == list(range(2, 441, 2))


@pytest.mark.parametrize("crash_at", [0, 3, 5, 8])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 60.0])
def test_a_run_cut_off_at_a_step_goes_on_to_the_same_bits(tmp_path, crash_at, checkpoint_seconds):
    def ended(folder, crashes):
        folder.mkdir()
        for crash in [*crashes, None]:
            work = make_training(checkpoint_seconds=checkpoint_seconds)
            batch = work.feed.batch

            def cut(step, batch=batch, crash=crash):
                if step == crash:
                    raise KeyboardInterrupt
                return batch(step)

            work.feed.batch = cut
            run = Run(folder, Silent())
            if crash is None:
                fitted = fit(work, run, Silent())
            else:
                with pytest.raises(KeyboardInterrupt):
                    fit(work, run, Silent())
        return work.module.state_dict(), run.metrics.read_bytes(), fitted

    whole, cut = ended(tmp_path / "whole", []), ended(tmp_path / "cut", [crash_at, crash_at + 1])
    assert all(torch.equal(whole[0][name], cut[0][name]) for name in whole[0])
    assert whole[1:] == cut[1:]


def test_a_resumed_run_says_so(tmp_path):
    fit(make_training(), Run(tmp_path, Silent()), Silent())
    told = Listener()
    fit(make_training(), Run(tmp_path, told), told)
    n = make_training().feed.n_steps
    assert told.notes[0] == f"resumed at step {n} of {n}"


def test_a_learning_rate_that_is_far_too_high_is_stopped_with_the_last_checkpoint_intact(tmp_path):
    work = make_training(learning_rate=1e6, checkpoint_seconds=0, epochs=8)
    run = Run(tmp_path, Silent())
    with pytest.raises(DanluError, match=r"is (nan|inf) at step \d+ .*the step was not taken") as found:
        fit(work, run, Silent())
    assert found.value.where == "training"
    assert "lower train.learning_rate" in str(found.value.advice)
    step = int(str(found.value).split("at step ")[1].split()[0])
    state = run.restore(Engine(work))
    assert state.step == step  # the bad step was not counted, and what came before it was kept
    assert all(bool(torch.isfinite(tensor).all()) for tensor in work.module.state_dict().values())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_no_weight_moves_at_a_step_that_is_not_finite(what, monkeypatch):
    work = make_training()
    module, engine = work.module, Engine(work)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    if what == "loss":
        monkeypatch.setattr(module, "loss", lambda output, _: output.logits.sum() * math.nan)
    else:
        next(module.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(DanluError, match="the loss is nan" if what == "loss" else "norm of the gradients is nan|inf"):
        engine.step(work.feed.batch(0), 0, 1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not engine.optimizer.state


def test_a_score_that_is_not_finite_is_an_error_not_the_best(tmp_path):
    work = make_training(lambda _model: {"score": 0.5, "loss": math.nan})
    with pytest.raises(DanluError, match="the validation loss is nan after step"):
        fit(work, Run(tmp_path, Silent()), Silent())


def test_long_gradients_are_clipped_and_the_norm_before_that_is_told():
    work = make_training(clip_norm=1e-3)
    _, norm = Engine(work).step(work.feed.batch(0), 0, 0.0)
    after = torch.stack([p.grad.norm() for p in work.module.parameters() if p.grad is not None]).norm()
    assert norm > 1e-3
    assert after.item() == pytest.approx(1e-3, rel=1e-3)


def test_dropout_follows_from_the_seed_and_the_step_not_from_what_was_drawn_before(tmp_path):
    ends = []
    for disturb in (0, 5):
        torch.rand(disturb)
        work = make_training()
        (tmp_path / str(disturb)).mkdir()
        fit(work, Run(tmp_path / str(disturb), Silent()), Silent())
        ends.append(nn.utils.parameters_to_vector(work.module.parameters()))
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch_tokens", 0),
        ("clip_norm", 0),
        ("patience", 0),
        ("evaluations_per_epoch", 0),
        ("checkpoint_seconds", -1),
        ("learning_rate", 0),
        ("warmup", 1.5),
        ("final_learning_rate", 2),
        ("weight_decay", -0.1),
        ("betas", [0.9, 1.0]),
        ("eps", 0),
    ],
)
def test_what_cannot_train_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        TrainConfig(**{key: value})
