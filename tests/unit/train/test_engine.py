from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.model.layers.block import Block
from danlu.train.average import Average
from danlu.train.checkpoint import Run
from danlu.train.engine import Engine, Training
from danlu.train.loop import fit
from danlu.train.tasks import TRAINING
from small import make_dataset, make_training, material_of, spec_of

TASKS = ["text-classification", "image-classification", "language-modelling", "translation"]
FAMILY_OF = {
    "text-classification": "bert",
    "image-classification": "vit",
    "language-modelling": "gpt",
    "translation": "transformer",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Prepares a tiny run of a task, its ``train`` section changed."""
    made: dict[str, Any] = {}

    def prepare(task: str, dropout: float = 0.0, **train: Any) -> Training:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            made[task] = folder, make_dataset(folder, task=task)[1]
        folder, dataset = made[task]
        train = {"optimizer": "adamw", "batch_tokens": 64 if task == "image-classification" else 512, **train}
        model = {
            "dropout": dropout,
            **({"token_dropout": 0.0, "block_dropout": dropout} if task == "text-classification" else {}),
        }
        spec = spec_of(folder, FAMILY_OF[task], task=task, model=model, train=train)
        return TRAINING[task].prepare(material_of(dataset, spec))

    return prepare


def losses(work: Training, n_steps: int = 4) -> list[float]:
    engine = Engine(work)
    return [engine.step(work.feed.batch(step % work.feed.n_steps), step, 1e-3)[0] for step in range(n_steps)]


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_in_parts_gives_the_step_of_the_whole(prepared, task):
    whole, *others = (prepared(task, accumulate=parts) for parts in (1, 4, 8))
    expected = losses(whole)
    for work in others:
        assert losses(work) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("task", TASKS)
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole(prepared, task):
    gradients = []
    for parts in (1, 3, 1000):
        work = prepared(task, accumulate=parts, clip_norm=1e9)
        engine = Engine(work)
        engine.step(work.feed.batch(0), 0, 0.0)
        gradients.append({name: weight.grad for name, weight in work.module.named_parameters()})
    for name, expected in gradients[0].items():
        for found in gradients[1:]:
            assert torch.allclose(found[name], expected, atol=1e-6, rtol=1e-4), name


def test_tokens_count_alike_whichever_part_they_are_in():
    """A mean over parts of unequal lengths would weigh the tokens of short texts more."""
    targets_BT = torch.tensor([[1, 2, 3, 4], [5, NOT_PREDICTED, NOT_PREDICTED, NOT_PREDICTED]])
    batch = Batch(
        rows_B=torch.arange(2),
        tokens_BT=torch.ones(2, 4, dtype=torch.long),
        mask_BT=targets_BT != NOT_PREDICTED,
        positions_BT=torch.arange(4).expand(2, 4),
        targets_BT=targets_BT,
    )
    long, short = batch.parts(2)
    assert (long.n_targets, short.n_targets) == (5, 5)
    assert (len(long.asked), len(short.asked)) == (4, 1)
    assert short.text[0].shape == (1, 1)  # padding that it does not need is gone
    assert long.n_records == short.n_records == 2
    assert batch.parts(1) == [batch]
    assert len(batch.parts(9)) == 2


@pytest.mark.parametrize("task", ["text-classification", "translation", "language-modelling", "image-classification"])
def test_what_is_computed_again_is_the_same(prepared, task):
    plain, again = (prepared(task, dropout=0.3, activation_checkpointing=each) for each in (False, True))
    assert losses(plain) == losses(again)
    for name, weight in again.module.state_dict().items():
        assert torch.equal(weight, plain.module.state_dict()[name]), name


def test_less_is_kept_for_the_backward_pass_where_it_is_computed_again(prepared):
    kept = []
    for each in (False, True):
        work = prepared("language-modelling", activation_checkpointing=each)
        engine, bytes_kept = Engine(work), [0]
        engine.model.train()

        def pack(tensor: torch.Tensor, count: list[int] = bytes_kept) -> torch.Tensor:
            count[0] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            work.loss(work.module, work.feed.batch(0))
        kept.append(bytes_kept[0])
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("asked", ["activation_checkpointing", "compile_blocks"])
def test_what_is_for_blocks_is_refused_where_there_are_none(asked, tmp_path):
    _, dataset = make_dataset(tmp_path)
    work = TRAINING["text-classification"].prepare(material_of(dataset, spec_of(tmp_path, "gru", train={asked: True})))
    with pytest.raises(UsageError, match=f"train.{asked} is for Transformer blocks"):
        Engine(work)


def test_the_mean_of_the_weights_by_hand():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = Average(model, 0.15)
    expected = 0.0
    for step, value in enumerate([1.0, 3.0, 5.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(step)
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.tensors["weight"].item() == pytest.approx(expected)
    with average.in_place():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 5.0


def test_the_mean_is_what_is_judged_and_kept(tmp_path):
    judged = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        judged.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"score": float(len(judged))}

    work, plain = make_training(evaluate, ema_decay=0.9), make_training()
    fit(work, Run(tmp_path, Silent()), Silent())
    engine = Engine(plain)
    for step in range(work.feed.n_steps):
        engine.step(plain.feed.batch(step), step, 1e-3)
    assert all(torch.equal(tensor, judged[-1][name]) for name, tensor in work.module.state_dict().items())
    assert not torch.equal(judged[-1]["head.linear.weight"], plain.module.state_dict()["head.linear.weight"])


@pytest.mark.parametrize("train", [{"ema_decay": 0.99}, {"accumulate": 3}, {"accumulate": 2, "ema_decay": 0.9}])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_cut_off_goes_on_to_the_same_bits(tmp_path, train, optimizer):
    def ended(name: str, crashes: list[int | None]) -> tuple[dict[str, torch.Tensor], bytes]:
        for crash in [*crashes, None]:
            work = make_training(checkpoint_seconds=0, optimizer=optimizer, **train)
            batch = work.feed.batch

            def cut(step: int, batch: Any = batch, crash: int | None = crash) -> Batch:
                if step == crash:
                    raise KeyboardInterrupt
                return batch(step)

            work.feed.batch = cut
            (tmp_path / name).mkdir(exist_ok=True)
            run = Run(tmp_path / name, Silent())
            if crash is None:
                fit(work, run, Silent())
            else:
                with pytest.raises(KeyboardInterrupt):
                    fit(work, run, Silent())
        return work.module.state_dict(), run.metrics.read_bytes()

    whole, cut = ended("whole", []), ended("cut", [3, 7])
    assert all(torch.equal(whole[0][name], cut[0][name]) for name in whole[0])
    assert whole[1] == cut[1]


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(prepared):
    work = prepared("language-modelling", precision="bfloat16")
    seen = []
    work = dataclasses.replace(
        work, loss=lambda model, batch: seen.append((out := model(batch)).logits.dtype) or model.loss(out, batch)
    )
    exact = losses(prepared("language-modelling", precision="float32"))
    assert losses(work) == pytest.approx(exact, rel=0.02)
    assert set(seen) == {torch.bfloat16}
    assert all(weight.dtype == torch.float32 for weight in work.module.parameters())


def test_checkpoints_are_kept_as_asked(tmp_path):
    work = make_training(checkpoint_seconds=0, keep_last=1, keep_every=4)
    run = Run(tmp_path, Silent(), work.config)
    fitted = fit(work, run, Silent())
    kept = {int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*")}
    n = fitted.n_steps
    assert kept == {step for step in range(n + 1) if step % 4 == 0} | {fitted.best_step, n}


# Torch itself looks at the gradient of what a block is given.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_blocks_train_the_same(prepared, monkeypatch):
    """By the backend that only traces: what a compiler makes of it is torch's, and needs one on the machine."""
    monkeypatch.setattr(Block, "compile", lambda block: nn.Module.compile(block, backend="eager"))
    plain, compiled = (prepared("language-modelling", compile_blocks=each) for each in (False, True))
    expected = losses(plain)
    try:
        assert losses(compiled) == pytest.approx(expected, abs=2e-6)
    finally:
        torch._dynamo.reset()
    blocks = [module for module in compiled.module.modules() if isinstance(module, Block)]
    assert all(block._compiled_call_impl is not None for block in blocks)
