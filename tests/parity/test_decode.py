"""Our decoder against transformers: the numbers that are drawn from, and the texts that are found.

Beams are compared in float64, so that no two of them are as likely but for rounding.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from danlu.core.batch import Batch
from danlu.model.base import TextConfig
from danlu.model.decode import DecodeConfig, generate, prompt_batch
from danlu.model.decoding.sampling import filtered, penalised

transformers = pytest.importorskip("transformers")
counterparts = pytest.importorskip("counterparts")

ENDS = [2, 3, 14, 29, 33, 46]
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [60, 59], [30, 20, 10]]
CASES = [
    counterparts.Case("GPT-2", "GPT2LMHeadModel", {}),
    counterparts.Case("Llama", "LlamaForCausalLM", {"num_key_value_heads": 2}),
    counterparts.Case("Qwen3", "Qwen3ForCausalLM", {"num_key_value_heads": 2, "head_dim": 12}),
]
CHOICES = itertools.product(
    [0.3, 1.0, 1.7], [None, 1, 7, 100], [0.05, 0.6, 0.97, 1.0], [0.0, 0.02, 0.5], [1.0, 1.3, 0.7]
)


def test_what_is_drawn_from_is_what_transformers_draws_from() -> None:
    n = 0
    for temperature, top_k, top_p, min_p, penalty in CHOICES:
        generator = torch.Generator().manual_seed(n)
        logits_BV = torch.randn(6, 60, generator=generator) * 3
        tokens_BT = torch.randint(60, (6, 12), generator=generator)
        seen_BV = torch.zeros(6, 60, dtype=torch.bool).scatter_(1, tokens_BT, True)
        ours_BV = filtered(penalised(logits_BV, seen_BV, penalty), temperature, top_k, top_p, min_p)
        assert torch.equal(ours_BV, their_filter(temperature, top_k, top_p, min_p, penalty)(tokens_BT, logits_BV))
        n += 1
    assert n == 432


@functools.cache
def a_model() -> Any:
    return counterparts.theirs(CASES[1], 1)


def their_filter(temperature: float, top_k: int | None, top_p: float, min_p: float, penalty: float) -> Any:
    """The processors that their generate puts together for these values, in its own order."""
    config = transformers.GenerationConfig(
        do_sample=True, temperature=temperature, top_k=top_k or 0, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    return a_model()._get_logits_processor(config, input_ids_seq_length=12, encoder_input_ids=torch.zeros(6, 12))


def their_texts(module: Any, prompts: list[list[int]], **config: Any) -> list[list[int]]:
    """What their generate writes after each prompt alone, up to the token that ends it."""
    found = []
    for prompt in prompts:
        tokens_BT = torch.tensor([prompt])
        with torch.inference_mode():
            written = module.generate(
                tokens_BT, attention_mask=torch.ones_like(tokens_BT), do_sample=False, pad_token_id=0, **config
            )
        found.append(until_end(written[0, len(prompt) :].tolist()))
    return found


def until_end(tokens: list[int]) -> list[int]:
    first = next((n for n, token in enumerate(tokens) if token in ENDS), len(tokens))
    return tokens[: first + 1]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    ("n_beams", "length_penalty", "penalty"),
    [(1, 1.0, 1.0), (1, 1.0, 1.4), (4, 1.0, 1.0), (4, 0.0, 1.0), (3, 2.0, 1.0), (4, 1.0, 1.4), (2, -1.0, 1.0)],
)
def test_a_batch_is_continued_as_transformers_continues_each_prompt(
    tmp_path: Path, case: Any, n_beams: int, length_penalty: float, penalty: float
) -> None:
    theirs = counterparts.theirs(case, 4)
    ours = counterparts.ours(counterparts.save(theirs, tmp_path / "theirs"), case.task)
    if n_beams > 1:
        theirs, ours = theirs.double(), ours.double()
    config = DecodeConfig(max_new_tokens=20, n_beams=n_beams, length_penalty=length_penalty, repetition_penalty=penalty)
    tokenizer = counterparts.tokenizer(61)
    found = [text.tokens for text in generate(ours, tokenizer, prompt_batch(PROMPTS, 1), config, ENDS)]
    expected = their_texts(
        theirs,
        PROMPTS,
        num_beams=n_beams,
        length_penalty=length_penalty,
        repetition_penalty=penalty,
        max_new_tokens=20,
        eos_token_id=ENDS,
    )
    assert found == expected
    assert len({tuple(text) for text in found}) > 1


@dataclass
class Read:
    """What their translator, asked without a cache, has to be given again."""

    source: dict[str, torch.Tensor]
    tokens_BT: torch.Tensor
    lengths_B: torch.Tensor

    def select(self, rows_B: torch.Tensor) -> Read:
        source = {name: tensor[rows_B] for name, tensor in self.source.items()}
        return Read(source, self.tokens_BT[rows_B], self.lengths_B[rows_B])


class Theirs:
    """Their translator as one of ours."""

    config = TextConfig(family="theirs", max_len=64)

    def __init__(self, module: Any) -> None:
        self.module = module

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, Read]:
        source_BS, source_mask_BS = batch.source
        encoded = self.module.get_encoder()(source_BS, attention_mask=source_mask_BS.long()).last_hidden_state
        state = Read(
            {"encoded": encoded, "mask": source_mask_BS.long()}, batch.text[0][:, :0], torch.zeros(len(source_BS))
        )
        assert max_len <= self.config.max_len
        return self.advance(batch.text[0][:, 0], state), state

    def advance(self, tokens_B: torch.Tensor, state: Read) -> torch.Tensor:
        state.tokens_BT = torch.cat([state.tokens_BT, tokens_B[:, None]], dim=1)
        state.lengths_B = state.lengths_B + 1
        output = self.module(
            encoder_outputs=(state.source["encoded"],),
            attention_mask=state.source["mask"],
            decoder_input_ids=state.tokens_BT,
            use_cache=False,
        )
        return output.logits[:, -1]


@pytest.mark.parametrize(("n_beams", "length_penalty"), [(1, 1.0), (4, 1.0), (5, 0.6), (3, 2.0)])
def test_a_batch_is_translated_as_transformers_translates_each_source(n_beams: int, length_penalty: float) -> None:
    config = transformers.MarianConfig(
        vocab_size=61,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=ENDS[0],
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = transformers.MarianMTModel(config).double().eval()
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0.0, 0.8)
            elif "bias" in name:
                nn.init.normal_(parameter, 0.0, 0.2)
    sources = [[5, 6, 7, 2], [8, 2], [9, 10, 11, 12, 13, 2], [60, 59, 2], [30, 20, 10, 40, 50, 55, 2]]
    batch, begun = prompt_batch(sources, 1), prompt_batch([[1]] * 5, 1)
    batch = replace(begun, source_BS=batch.tokens_BT, source_mask_BS=batch.mask_BT)
    ours = DecodeConfig(max_new_tokens=20, n_beams=n_beams, length_penalty=length_penalty)
    with torch.inference_mode():
        found = [text.tokens for text in generate(Theirs(module), counterparts.tokenizer(61), batch, ours, ENDS)]
        expected = [
            until_end(
                module.generate(
                    torch.tensor([source]),
                    attention_mask=torch.ones(1, len(source), dtype=torch.int64),
                    do_sample=False,
                    num_beams=n_beams,
                    length_penalty=length_penalty,
                    max_new_tokens=20,
                    eos_token_id=ENDS,
                )[0, 1:].tolist()
            )
            for source in sources
        ]
    assert found == expected
    assert len({tuple(text) for text in found}) > 2
