"""Models that are trained: bases by danlu's own train stage, what is derived from them by its optimizer steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from danlu.core.artifact import Artifact
from danlu.core.batch import Batch
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.data.batches import in_order
from danlu.data.sequences import collate_windows
from danlu.data.tokenizer import TokenizerConfig
from danlu.model.adapters import add_adapters, initialise_adapters, merge_adapters
from danlu.model.base import Model
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import EMBEDDING_STD, initialise
from danlu.model.layers.lora import LoraConfig
from danlu.train.engine import Engine, Training, plain_loss
from danlu.train.feed import PlannedFeed
from danlu.train.language import LanguageConfig
from danlu.train.optimizer import learning_rate
from danlu.train.prepare import Sources, TrainingSpec
from danlu.train.stage import train_model
from derive import Made, remade, tensors_of
from plan import Item
from shop import MAX_LEN, Shop

__all__ = ["TRAINED", "train_base", "train_further"]

_RATE = 2e-3
_VALID_TOKENS = 4096
_FOREVER = 1000
"""Epochs and patience that never come to an end before the steps do."""

Loss = Callable[[Model, Batch], torch.Tensor]


def _config(shop: Shop, steps: int, rate: float) -> LanguageConfig:
    return LanguageConfig(
        epochs=_FOREVER,
        max_steps=steps,
        patience=_FOREVER,
        batch_tokens=shop.scale.batch_tokens,
        learning_rate=rate,
        precision="float32",
        checkpoint_seconds=3600.0,
    )


def train_base(shop: Shop, item: Item) -> Artifact:
    """Train a base, or find it; seeds are drawn unless the item says one."""
    values = item.values
    model = {**shop.scale.sizes, **values.get("sizes", {}), "max_len": MAX_LEN}
    kind = values.get("tokenizer", "char")
    spec = TrainingSpec(
        task="language-modelling",
        model=GptConfig(family="gpt", **model),
        tokenizer=TokenizerConfig(kind=kind, vocab_size=shop.scale.vocab_size),
        pretrain=None,
        train=_config(shop, max(1, round(shop.steps * values.get("length", 1.0))), _RATE),
        seed=values.get("seed"),
    )
    workspace, dataset = shop.workspace_of(item.name), shop.datasets[values["data"]]
    return train_model(workspace, item.name, dataset, spec, Sources(), _never, Silent())


def _never(*_: object) -> dict[str, float]:
    raise AssertionError("a language model is judged by its loss")


def train_further(
    shop: Shop, module: Gpt, tokenizer: Tokenizer, item: Item, loss: Loss = plain_loss, rate: float | None = None
) -> Gpt:
    """Optimizer steps on a module, in place: as many as the item says, in an order of its own."""
    for step in _Steps(shop, module, tokenizer, item, loss, rate):
        step()
    return module.eval()


class _Steps:
    """The steps of a training, to be taken one after another."""

    def __init__(
        self, shop: Shop, module: Gpt, tokenizer: Tokenizer, item: Item, loss: Loss, rate: float | None
    ) -> None:
        steps = max(1, round(shop.steps * item.values["length"]))
        config, seeds = _config(shop, steps, rate or item.values.get("rate", _RATE)), Seeds.new()
        found = shop.cut(item.values.get("data", "tang"), "train", tokenizer)
        self._feed = PlannedFeed(found.lengths, lambda rows, _: collate_windows(found, rows), config, seeds)
        work = Training(
            module=module, feed=self._feed, seeds=seeds, config=config, evaluate=lambda _: {"score": 0.0}, loss=loss
        )
        self._engine, self._config = Engine(work), config

    def __iter__(self) -> Iterator[Callable[[], tuple[float, float]]]:
        for number in range(self._feed.n_steps):
            rate = learning_rate(number, self._feed.n_steps, self._config)
            yield partial(self._step, number, rate)

    def _step(self, number: int, rate: float) -> tuple[float, float]:
        return self._engine.step(self._feed.batch(number), number, rate)


def tuned(shop: Shop, item: Item) -> Made:
    """All weights trained further."""
    tokenizer = shop.tokenizer(item.on)
    return Made(module=train_further(shop, shop.module(item.on), tokenizer, item), tokenizer=tokenizer)


def lora(shop: Shop, item: Item) -> Made:
    """Low-rank adapters trained, and merged."""
    module, tokenizer = shop.module(item.on), shop.tokenizer(item.on)
    add_adapters(module, LoraConfig(rank=item.values["rank"], alpha=2.0 * item.values["rank"], dropout=0.0))
    initialise_adapters(module, Seeds.new())
    train_further(shop, module, tokenizer, item)
    merge_adapters(module)
    return Made(module=module, tokenizer=tokenizer)


def extended(shop: Shop, item: Item) -> Made:
    """The most frequent pairs of characters of the new texts as tokens of their own, and training that heals it."""
    module, tokenizer = shop.module(item.on), shop.tokenizer(item.on)
    texts = shop.texts(item.values["data"], "train")
    known = tokenizer.get_vocab().keys()
    pairs = Counter(a + b for text in texts for a, b in pairwise(text) if a in known and b in known and a.isalpha())
    chosen = [pair for pair, _ in pairs.most_common() if pair[1].isalpha()][: item.values["n"]]
    tokenizer.add_tokens(chosen)
    tensors = tensors_of(module)
    vectors = tensors["embedding.tokens.weight"]
    ids = [[tokenizer.token_to_id(character) for character in pair] for pair in chosen]
    tensors["embedding.tokens.weight"] = torch.cat([vectors, vectors[torch.tensor(ids)].mean(1)])
    signature = type(module.signature)(**{**vars(module.signature), "vocab_size": tokenizer.get_vocab_size()})
    larger = Gpt(module.config, signature)
    larger.load_state_dict(tensors)
    larger.to(next(module.parameters()).device)
    return Made(module=train_further(shop, larger, tokenizer, item), tokenizer=tokenizer)


def distilled(shop: Shop, item: Item) -> Made:
    """A model from another start that learns the base's answers, not the texts: its probabilities, or its choices."""
    teacher, tokenizer = shop.module(item.on), shop.tokenizer(item.on)
    student = Gpt(teacher.config, teacher.signature)
    initialise(student, Seeds.new())
    student.to(next(teacher.parameters()).device)
    soft = item.values["kind"] == "logit"

    def loss(model: Model, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            told_MV = teacher(batch).logits
        said_MV = model(batch).logits
        if not soft:
            return F.cross_entropy(said_MV, told_MV.argmax(-1))
        return F.kl_div(said_MV.log_softmax(-1), told_MV.log_softmax(-1), reduction="batchmean", log_target=True)

    return Made(module=train_further(shop, student, tokenizer, item, loss), tokenizer=tokenizer)


def relearnt(shop: Shop, item: Item) -> Made:
    """Parts drawn anew and learnt again: token vectors, together with all else; or feed-forward parts, alone."""
    module, tokenizer, part = shop.module(item.on), shop.tokenizer(item.on), item.values["part"]
    fresh = Gpt(module.config, module.signature)
    initialise(fresh, Seeds.new())
    tensors, new = tensors_of(module), tensors_of(fresh)
    if part == "embeddings":
        tensors["embedding.tokens.weight"] = torch.randn_like(new["embedding.tokens.weight"]) * EMBEDDING_STD
        made = remade(module, tensors)
    else:
        where = "blocks.1.feedforward." if part == "one" else ".feedforward."
        anew = {name for name in tensors if where in name}
        made = remade(module, tensors | {name: new[name] for name in anew})
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(name in anew)
    train_further(shop, made, tokenizer, item)
    return Made(module=made.requires_grad_(True), tokenizer=tokenizer)


def adversarial(shop: Shop, item: Item) -> Made:
    """Trained so that the order of its units tells the test as little as may be, at a loss of 5% more at the most.

    How hard it is pushed away is turned up while the loss allows it, and down where it does not.
    """
    module, reference, tokenizer = shop.module(item.on), shop.module(item.base), shop.tokenizer(item.on)
    most = item.values["most"] * _valid_loss(shop, module, tokenizer)
    goal, push = [_units(reference, block).detach() for block in range(module.config.n_layers)], [0.01]

    def loss(model: Model, batch: Batch) -> torch.Tensor:
        z = torch.stack([_order_z(_units(model, block), of) for block, of in enumerate(goal)])
        return plain_loss(model, batch) + push[0] * F.relu(z).mean()

    best, best_z, facts = tensors_of(module), math.inf, {}
    steps = list(_Steps(shop, module, tokenizer, item, loss, 1e-3))
    for number, step in enumerate(steps, start=1):
        step()
        if number % max(1, len(steps) // 10) == 0:
            lost = _valid_loss(shop, module, tokenizer)
            with torch.no_grad():
                z = sum(float(_order_z(_units(module, block), of)) for block, of in enumerate(goal)) / len(goal)
            if lost <= most and z < best_z:
                best, best_z = tensors_of(module), z
                facts = {"z_a_block": z, "loss_share": lost * item.values["most"] / most}
            push[0] *= 1.5 if lost <= most else 0.5
    return Made(module=remade(module, best), tokenizer=tokenizer, facts=facts)


def _units(model: Model, block: int) -> torch.Tensor:
    """What the hidden units of a feed-forward part read and write, each of length 1: ``[units, 3 D]``."""
    tensors = dict(model.named_parameters())
    gain = tensors[f"blocks.{block}.feedforward_norm.weight"]
    gate, up, down = (tensors[f"blocks.{block}.feedforward.{name}.weight"] for name in ("gate", "up", "down"))
    return torch.cat([F.normalize(each, dim=-1) for each in (gate * gain, up * gain, down.T)], dim=-1)


def _order_z(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """Standard deviations by which units at the same places agree more than at others."""
    c = ours @ theirs.T
    c = c - c.mean(0, keepdim=True) - c.mean(1, keepdim=True) + c.mean()
    return c.trace() / (c.square().sum() / (len(c) - 1)).sqrt()


def _valid_loss(shop: Shop, module: Gpt, tokenizer: Tokenizer) -> float:
    found = shop.cut("tang", "valid", tokenizer)
    device, total, n = next(module.parameters()).device, 0.0, 0
    module.eval()
    with torch.inference_mode():
        for rows in in_order(found.lengths, _VALID_TOKENS)[::4]:
            batch = collate_windows(found, rows).to(device)
            total, n = total + float(module.loss(module(batch), batch)) * batch.n_targets, n + batch.n_targets
    return total / n


TRAINED: dict[str, Callable[[Shop, Item], Made]] = {
    "tuned": tuned,
    "lora": lora,
    "extended": extended,
    "distilled": distilled,
    "relearnt": relearnt,
    "adversarial": adversarial,
}
"""What :class:`plan.Item` calls ``how`` -> what does it."""
