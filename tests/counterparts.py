"""Small random models of transformers, what they answer, and what danlu makes of their folders."""

from __future__ import annotations

import contextlib
import functools
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn

from danlu.core.batch import Batch
from danlu.core.seeds import Seeds
from danlu.model.base import Model, Task
from danlu.model.init import initialise
from danlu.model.module import build_module
from danlu.model.pretrained.config import architecture_in, read_config
from danlu.model.pretrained.load import Loaded, load_weights
from danlu.model.pretrained.tokenizers import read_signature, read_tokenizer

CLASSIFY: Task = "text-classification"
MASKED: Task = "masked-language-modelling"
LANGUAGE: Task = "language-modelling"
N_CLASSES = 3


@dataclass(frozen=True)
class Case:
    """A model of transformers to be compared.

    Attributes:
        family: Its row of the table.
        kind: The class, without what all of a family share.
        config: What differs from the smallest config.
        task: What it does.
    """

    family: str
    kind: str
    config: dict[str, Any]
    task: Task = LANGUAGE

    def __str__(self) -> str:
        return "-".join(
            [self.kind, *(f"{key}={value}" for key, value in self.config.items() if key != "rope_parameters")]
        )


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES = [
    Case("BERT", "BertForPreTraining", {}, MASKED),
    Case("BERT", "BertForPreTraining", {"hidden_act": "relu", "type_vocab_size": 3, "hidden_size": 20}, MASKED),
    Case("BERT", "BertForMaskedLM", {"hidden_act": "gelu_new", "num_attention_heads": 2}, MASKED),
    Case("BERT", "BertForSequenceClassification", {"num_labels": N_CLASSES}, CLASSIFY),
    Case("GPT-2", "GPT2LMHeadModel", {}),
    Case("GPT-2", "GPT2LMHeadModel", {"n_inner": 40, "activation_function": "relu", "n_head": 2}),
    Case("GPT-2", "GPT2LMHeadModel", {"tie_word_embeddings": False, "activation_function": "gelu"}),
    Case("Llama", "LlamaForCausalLM", {}),
    Case("Llama", "LlamaForCausalLM", {"num_key_value_heads": 2, "rope_parameters": _LLAMA3, "head_dim": 10}),
    Case("Llama", "LlamaForCausalLM", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    Case("Llama", "LlamaForCausalLM", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    Case("Qwen2", "Qwen2ForCausalLM", {"num_key_value_heads": 2}),
    Case("Qwen2", "Qwen2ForCausalLM", {"tie_word_embeddings": True, "rope_parameters": {**_LLAMA3, "factor": 2.0}}),
    Case("Qwen3", "Qwen3ForCausalLM", {"num_key_value_heads": 2, "head_dim": 12}),
    Case("Qwen3", "Qwen3ForCausalLM", {"tie_word_embeddings": True, "head_dim": 6, "num_key_value_heads": 4}),
]
"""Every architecture in several shapes: shared key-value heads, tied and untied, heads of another width, ..."""

_SMALLEST = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 36,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def theirs(case: Case, seed: int) -> nn.Module:
    """A model of transformers with random weights, large enough to matter everywhere."""
    kind = getattr(transformers, case.kind)
    names = {"n_embd": "hidden_size", "n_head": "num_attention_heads"} if case.family == "GPT-2" else {}
    given = {**_SMALLEST, **{names.get(key, key): value for key, value in case.config.items()}}
    if case.family == "GPT-2":
        del given["intermediate_size"]
    if case.family in ("BERT", "GPT-2"):
        del given["num_key_value_heads"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = kind(kind.config_class(**given)).eval()
        for name, parameter in module.named_parameters():
            nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0, 0.3)
    return module


def save(module: nn.Module, folder: Path, **options: Any) -> Path:
    """Write a model of transformers into a folder, with a tokenizer of as many tokens."""
    with quiet():
        module.save_pretrained(folder, **options)
    tokenizer(module.config.vocab_size).save(str(folder / "tokenizer.json"))
    return folder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers."""
    transformers.utils.logging.disable_progress_bar()
    yield


@functools.cache
def tokenizer(n_tokens: int) -> Tokenizer:
    """A tokenizer of the make of Qwen's, with n tokens: single letters, for texts of these only."""
    special, letters = ["<pad>", "<s>", "</s>", "<mask>"], string.ascii_letters + string.digits
    vocabulary = {token: number for number, token in enumerate([*special, *letters[: n_tokens - len(special)]])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return made


def ours(folder: Path, task: Task) -> Model:
    """What danlu makes of a folder."""
    return _ours(folder, task)[0]


def _ours(folder: Path, task: Task) -> tuple[Model, Loaded]:
    module = build_module(read_config(folder, task), read_signature(folder, read_tokenizer(folder), task, N_CLASSES))
    initialise(module, Seeds.new("new"))
    loaded = load_weights(module, folder)
    return module.eval(), loaded


def batch(n_tokens: int, seed: int, *, segments: bool) -> Batch:
    """Texts of different lengths, padded on the right; of two segments each where wanted."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B1 = torch.tensor([[11], [17], [1], [6]])
    positions_BT = torch.arange(17).expand(4, -1)
    mask_BT = positions_BT < lengths_B1
    tokens_BT = torch.randint(1, n_tokens, (4, 17), generator=generator).masked_fill(~mask_BT, 0)
    second_BT = (positions_BT >= lengths_B1 // 2) & mask_BT
    return Batch(
        rows_B=torch.arange(4),
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        positions_BT=positions_BT,
        segments_BT=second_BT.long() if segments else None,
    )


def padded(texts: list[list[int]]) -> Batch:
    """Token ids of texts as a batch."""
    length = max(map(len, texts))
    positions_BT = torch.arange(length).expand(len(texts), -1)
    return Batch(
        rows_B=torch.arange(len(texts)),
        tokens_BT=torch.tensor([text + [0] * (length - len(text)) for text in texts]),
        mask_BT=positions_BT < torch.tensor([[len(text)] for text in texts]),
        positions_BT=positions_BT,
    )


@dataclass(frozen=True)
class Difference:
    """The largest absolute differences of a model from its counterpart, and the largest numbers themselves."""

    forward: float
    largest_answer: float
    backward: float
    largest_gradient: float
    n_parameters: int


def difference(module: nn.Module, folder: Path, case: Case, seed: int) -> Difference:
    """Compare answers on the same texts, and the gradients of a random function of them in every parameter."""
    counterpart = ours(folder, case.task)
    texts = batch(module.config.vocab_size, seed, segments=case.family == "BERT")
    sides = (module, _their_answers(module, texts, case)), (counterpart, _our_answers(counterpart, texts, case))
    return _apart(*sides, folder, seed)


def _apart(
    theirs: tuple[nn.Module, list[torch.Tensor]], ours: tuple[Model, list[torch.Tensor]], folder: Path, seed: int
) -> Difference:
    (module, their_answers), (counterpart, our_answers) = theirs, ours
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(answer.shape, generator=generator) for answer in their_answers]
    for model, answers in ((module, their_answers), (counterpart, our_answers)):
        model.zero_grad()
        total = torch.stack([(weight * answer).sum() for weight, answer in zip(weights, answers, strict=True)]).sum()
        torch.autograd.backward(total / len(their_answers[0]))
    names = architecture_in(folder).names
    places, _ = names.places(counterpart, counterpart.signature.task)
    apart, largest = 0.0, 0.0
    for name, parameter in module.named_parameters():
        mine = [counterpart.get_parameter(each).grad for each in places[names.canonical(name)].ours]
        apart = max(apart, float((places[names.canonical(name)].join(mine) - parameter.grad).abs().max()))
        largest = max(largest, float(parameter.grad.abs().max()))
    their_answers, our_answers = ([answer.detach() for answer in side] for side in (their_answers, our_answers))
    return Difference(
        forward=max(float((a - b).abs().max()) for a, b in zip(their_answers, our_answers, strict=True)),
        largest_answer=max(float(answer.abs().max()) for answer in their_answers),
        backward=apart,
        largest_gradient=largest,
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


def backbone_difference(module: nn.Module, folder: Path, texts: list[str]) -> tuple[Difference, Loaded]:
    """The same of a BERT without a head: vectors of texts, and gradients; and what of ours is new."""
    encode = read_tokenizer(folder).encode
    given = padded([encode(text).ids for text in texts])
    counterpart, loaded = _ours(folder, CLASSIFY)
    seen: list[torch.Tensor] = []
    counterpart.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    counterpart(given)
    (vectors_BTD,) = seen
    their = module(input_ids=given.tokens_BT, attention_mask=given.mask_BT.long())
    assert given.mask_BT is not None
    their_answers = [their.last_hidden_state[given.mask_BT], their.pooler_output]
    our_answers = [vectors_BTD[given.mask_BT], counterpart.pooler(vectors_BTD, given.mask_BT)]
    return _apart((module, their_answers), (counterpart, our_answers), folder, 0), loaded


def _their_answers(module: nn.Module, texts: Batch, case: Case) -> list[torch.Tensor]:
    given = {"input_ids": texts.tokens_BT, "attention_mask": texts.mask_BT.long()}
    if texts.segments_BT is not None:
        given["token_type_ids"] = texts.segments_BT
    answer = module(**given)
    if case.kind == "BertForPreTraining":
        return [answer.prediction_logits[texts.mask_BT], answer.seq_relationship_logits]
    return [answer.logits if case.task == CLASSIFY else answer.logits[texts.mask_BT]]


def _our_answers(module: Model, texts: Batch, case: Case) -> list[torch.Tensor]:
    answer = module(texts)
    if case.kind == "BertForPreTraining":
        return [answer.logits[texts.mask_BT], answer.pair_logits_B2.flip(-1)]  # theirs counts from "it follows"
    return [answer.logits if case.task == CLASSIFY else answer.logits[texts.mask_BT]]


def greedy(module: Model, prompts: list[list[int]], n_new: int) -> list[list[int]]:
    """The likeliest continuations of prompts together, by the cache, without an end."""
    texts = padded(prompts)
    with torch.inference_mode():
        logits_BV, state = module.begin(texts, max(map(len, prompts)) + n_new)
        tokens = [logits_BV.argmax(-1)]
        for _ in range(n_new - 1):
            tokens.append(module.advance(tokens[-1], state).argmax(-1))
    return torch.stack(tokens, dim=1).tolist()


def their_greedy(module: nn.Module, prompts: list[list[int]], n_new: int) -> list[list[int]]:
    """The same by transformers' generate, one prompt at a time."""
    module.generation_config.eos_token_id = None  # or else it would come back
    config = transformers.GenerationConfig(max_new_tokens=n_new, do_sample=False, pad_token_id=0)
    found = []
    for prompt in prompts:
        tokens_BT = torch.tensor([prompt])
        done = module.generate(tokens_BT, attention_mask=torch.ones_like(tokens_BT), generation_config=config)
        found.append(done[0, len(prompt) :].tolist())
    return found
