"""The other side of against_trainer.py: models of transformers, trained by its Trainer for a number of seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from danlu.data.tokenizer import encode
from danlu.model.base import Signature
from danlu.model.language import NeuralLanguageModel
from danlu.model.module import build_module
from danlu.model.pretrained.config import read_config
from danlu.model.pretrained.load import load_weights
from danlu.model.translator import TRANSLATING, NeuralTranslator
from danlu.train.language import bits_per_character
from stopwatch import Stopwatch

__all__ = ["Gpt2", "Marian", "Plan", "train"]

Row = dict[str, list[int]]
IGNORED = -100
N_PROBES = 30
N_AT_ONCE = 64

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class Plan:
    """How the Trainer is to train."""

    seconds: float
    learning_rate: float
    batch_size: int
    warmup: float
    weight_decay: float
    n_looks: int
    seed: int


def train(
    model: Any, rows: list[Row], collate: Callable[[list[Row]], Any], plan: Plan, look: Callable[[], float]
) -> dict[str, Any]:
    """Train for the seconds: how many steps these are is measured first, on a copy of the weights."""
    drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    watch, _ = _run(model, rows, collate, plan, N_PROBES, {N_PROBES // 3: lambda: 0.0})
    model.load_state_dict(drawn)
    n_steps = round(plan.seconds / (watch / (N_PROBES - N_PROBES // 3)))
    looks = {n_steps * part // plan.n_looks: look for part in range(1, plan.n_looks + 1)}
    _, curve = _run(model, rows, collate, plan, n_steps, looks)
    return {"parameters": model.num_parameters(), "steps": n_steps, "curve": curve}


def _run(
    model: Any,
    rows: list[Row],
    collate: Callable[[list[Row]], Any],
    plan: Plan,
    n_steps: int,
    looks: dict[int, Callable[[], float]],
) -> tuple[float, list[list[float]]]:
    """Seconds since the first look (or of all, where that is the only one), and what every look saw."""
    curve: list[list[float]] = []

    class Looking(transformers.TrainerCallback):
        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step == 0:
                self.watch = Stopwatch()

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step in looks or state.global_step == n_steps:
                with self.watch.still():
                    model.eval()
                    value = looks[state.global_step]() if state.global_step in looks else 0.0
                    model.train()
                    curve.append([self.watch.seconds, value])
                print(f"theirs: {curve[-1]}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            max_steps=n_steps,
            per_device_train_batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=round(plan.warmup * n_steps),
            weight_decay=plan.weight_decay,
            train_sampling_strategy="group_by_length",
            label_smoothing_factor=0.1 if isinstance(model, transformers.MarianMTModel) else 0.0,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=plan.seed,
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Looking()]
        )
        trainer.train()
    return curve[-1][0] - curve[0][0], curve


def _side_by_side(rows: list[list[int]], fill: int) -> torch.Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)


class Gpt2:
    """GPT-2 of the size of ours: what SwiGLU has in three matrices it has in two."""

    def __init__(self, ours: NeuralLanguageModel, texts: list[str]) -> None:
        config: Any = ours.config
        self.ours = ours
        begin, end, max_len = ours.special.begin, ours.special.end, config.max_len
        tokens = encode(ours.tokenizer, texts, None, special=False)
        self.rows: list[Row] = []
        for start, stop in zip(tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True):
            whole = [begin, *tokens.ids[start:stop].tolist(), end]
            self.rows += [
                {"input_ids": whole[at : at + max_len + 1]} for at in range(0, max(1, len(whole) - 1), max_len)
            ]
        transformers.set_seed(1)
        self.model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=ours.module.signature.vocab_size,
                n_positions=max_len,
                n_embd=config.d_model,
                n_layer=config.n_layers,
                n_head=config.n_heads,
                n_inner=config.d_ff * 3 // 2,
                bos_token_id=begin,
                eos_token_id=end,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )

    def collate(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Texts side by side, each asking for the token after every one that is read."""
        texts = [row["input_ids"] for row in rows]
        read_BT = _side_by_side([text[:-1] for text in texts], 0)
        asked_BT = _side_by_side([text[1:] for text in texts], IGNORED)
        mask_BT = (asked_BT != IGNORED).long()
        return {"input_ids": read_BT, "attention_mask": mask_BT, "labels": asked_BT, "shift_labels": asked_BT}

    def as_ours(self) -> NeuralLanguageModel:
        """Their weights in our module, so that one and the same code judges both."""
        with tempfile.TemporaryDirectory() as name:
            self.model.save_pretrained(name)
            signature: Signature = self.ours.module.signature
            module = build_module(read_config(Path(name), "language-modelling"), signature)
            load_weights(module, Path(name))
        return NeuralLanguageModel(module, self.ours.tokenizer)

    def bits(self, texts: list[str]) -> float:
        """Bits per character."""
        return bits_per_character(self.as_ours(), texts)


class Marian:
    """MarianMT of the size of ours."""

    def __init__(self, ours: NeuralTranslator, sources: Sequence[str], targets: Sequence[str]) -> None:
        config: Any = ours.config
        self.ours = ours
        self.pad, self.begin, self.end = 0, ours.special.begin, ours.special.end
        self.max_len = config.max_len
        both = [self._encoded(texts) for texts in (sources, targets)]
        self.rows: list[Row] = [{"input_ids": source, "labels": target} for source, target in zip(*both, strict=True)]
        transformers.set_seed(1)
        self.model = transformers.MarianMTModel(
            transformers.MarianConfig(
                vocab_size=ours.module.signature.vocab_size,
                d_model=config.d_model,
                encoder_layers=config.n_layers,
                decoder_layers=config.n_decoder_layers,
                encoder_attention_heads=config.n_heads,
                decoder_attention_heads=config.n_heads,
                encoder_ffn_dim=config.d_ff,
                decoder_ffn_dim=config.d_ff,
                max_position_embeddings=config.max_len,
                scale_embedding=True,
                dropout=config.dropout,
                activation_function="swish",
                pad_token_id=self.pad,
                eos_token_id=self.end,
                decoder_start_token_id=self.begin,
                forced_eos_token_id=None,
            )
        )

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        tokens = encode(self.ours.tokenizer, texts, self.max_len - 1, special=False)
        bounds = zip(tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True)
        return [[*tokens.ids[start:stop].tolist(), self.end] for start, stop in bounds]

    def collate(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Pairs side by side."""
        read_BS = _side_by_side([row["input_ids"] for row in rows], self.pad)
        asked_BT = _side_by_side([row["labels"] for row in rows], IGNORED)
        decoder_BT = asked_BT.masked_fill(asked_BT == IGNORED, self.pad).roll(1, 1)
        decoder_BT[:, 0] = self.begin
        return {
            "input_ids": read_BS,
            "attention_mask": (read_BS != self.pad).long(),
            "decoder_input_ids": decoder_BT,
            "labels": asked_BT,
        }

    def translate(self, texts: Sequence[str]) -> list[str]:
        """By as many beams as ours."""
        self.model.eval()
        sources = self._encoded(texts)
        order = sorted(range(len(texts)), key=lambda row: len(sources[row]))
        found = [""] * len(texts)
        for start in range(0, len(order), N_AT_ONCE):
            rows = order[start : start + N_AT_ONCE]
            read_BS = _side_by_side([sources[row] for row in rows], self.pad)
            written = self.model.generate(
                read_BS,
                attention_mask=(read_BS != self.pad).long(),
                num_beams=TRANSLATING.n_beams,
                length_penalty=TRANSLATING.length_penalty,
                max_length=self.max_len,
            )
            for row, tokens in zip(rows, written.tolist(), strict=True):
                kept = tokens[1 : tokens.index(self.end)] if self.end in tokens else tokens[1:]
                found[row] = self.ours.tokenizer.decode([token for token in kept if token != self.pad])
        return found
