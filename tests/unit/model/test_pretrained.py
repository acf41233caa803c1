"""Checkpoints in Hugging Face layout, written and read by danlu alone; tests/parity holds them against transformers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from danlu.core.errors import CorruptError, DanluError, UsageError
from danlu.core.seeds import Seeds
from danlu.data.tokenizer import TokenizerConfig, save_tokenizer, train_tokenizer
from danlu.model.adapters import add_adapters
from danlu.model.base import Model, Signature, Task
from danlu.model.bert import BertConfig
from danlu.model.gpt import GptConfig
from danlu.model.gru import Gru, GruConfig
from danlu.model.init import initialise
from danlu.model.layers.lora import LoraConfig
from danlu.model.module import build_module, save_module
from danlu.model.pretrained.architectures import effective
from danlu.model.pretrained.config import architecture_of, read_config, their_config
from danlu.model.pretrained.files import INDEX, WEIGHTS
from danlu.model.pretrained.load import Loaded, load_weights
from danlu.model.pretrained.save import renamer, save_pretrained
from danlu.model.pretrained.tokenizers import read_signature, read_special_tokens, read_tokenizer

V, N = 40, 3
CLASSIFY: Task = "text-classification"
MASKED: Task = "masked-language-modelling"
LANGUAGE: Task = "language-modelling"

SHAPE = {"d_model": 16, "n_layers": 2, "n_heads": 4, "d_ff": 24, "max_len": 12}
FIRST_BERT = {"family": "bert", "positions": "learned", "norm_first": False, "pooling": "first", "n_segments": 2}
FIRST_GPT = {"positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True}
STRETCHED = {"factor": 4.0, "low_factor": 1.0, "high_factor": 4.0, "original_len": 8}
MAKES: dict[str, dict[str, Any]] = {
    "bert": {**FIRST_BERT, "norm_eps": 1e-9, "activation": "relu"},
    "gpt2": {**FIRST_GPT, "tie_embeddings": False},
    "llama": {"n_kv_heads": 2, "rope_base": 500.0, "rope_scaling": STRETCHED, "tie_embeddings": False, "bias": True},
    "qwen2": {"qkv_bias": True, "n_kv_heads": 1},
    "qwen3": {"qk_norm": True, "d_head": 6},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Of the make of Qwen's, which every architecture may have: single letters."""
    words = ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>", *(chr(ord("A") + i) for i in range(V - 5))]
    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    made.normalizer = normalizers.NFC()
    pieces = [pre_tokenizers.Split(Regex(r"\p{L}"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    made.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(words[:5])
    return made


def module_of(make: str, task: Task | None = None, **changes: Any) -> Model:
    task = task or (CLASSIFY if make == "bert" else LANGUAGE)
    values = {**SHAPE, **MAKES.get(make, {}), **changes}
    family = values.pop("family", "gpt")
    config = (BertConfig if family == "bert" else GptConfig)(family=family, **values)
    n_classes = N if task == CLASSIFY else 0
    signature = Signature(task=task, vocab_size=V, mask_token=4, begin_token=2, end_token=3, n_classes=n_classes)
    module = build_module(config, signature)
    initialise(module, Seeds.new("saved"))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in module.parameters():  # so that no two are alike
            parameter.add_(torch.randn_like(parameter) / 8)
    return module.eval()


def started(folder: Path, task: Task, n_classes: int = N, **changes: Any) -> Model:
    """A module with drawn weights that fits a checkpoint."""
    config = read_config(folder, task).model_copy(update=changes)
    module = build_module(config, read_signature(folder, read_tokenizer(folder), task, n_classes))
    initialise(module, Seeds.new("started"))
    return module.eval()


def equal(one: Model, other: Model) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., Path]:
    """Write a module of a make, or a given one, and say where."""

    def save(make: str | Model, **options: Any) -> Path:
        folder = tmp_path / f"checkpoint{len(list(tmp_path.iterdir()))}"
        save_pretrained(module_of(make) if isinstance(make, str) else make, tokenizer, folder, **options)
        return folder

    return save


def change_config(folder: Path, **changes: Any) -> Path:
    stored = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in {**stored, **changes}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    return folder


# There and back


@pytest.mark.parametrize("make", MAKES)
def test_what_is_saved_is_loaded_bit_for_bit(saved: Callable[..., Path], make: str) -> None:
    module = module_of(make)
    folder = saved(module)
    task = module.signature.task
    again = started(folder, task, module.signature.n_classes)
    assert not equal(module, again)
    assert load_weights(again, folder) == Loaded((), ())
    assert equal(module, again)
    assert again.signature == module.signature
    free = architecture_of(module.config).free
    wanted, found = effective(module.config), effective(again.config)
    assert {key: found[key] for key in wanted if key not in free} == {k: v for k, v in wanted.items() if k not in free}
    assert found["max_len"] == wanted["max_len"]
    assert found["dropout"] == wanted["dropout"]
    assert json.loads((folder / "config.json").read_text())["model_type"] == make


def test_the_head_of_hidden_tokens_and_pairs_is_kept_too(saved: Callable[..., Path]) -> None:
    module = module_of("bert", MASKED)
    folder = saved(module)
    again = started(folder, MASKED)
    assert load_weights(again, folder) == Loaded((), ())
    assert equal(module, again)
    # Theirs says "it follows" first, ours last.
    stored = load_file(folder / WEIGHTS)["cls.seq_relationship.weight"]
    assert torch.equal(stored, module.get_parameter("head.pair.weight").flip(0))


@pytest.mark.parametrize("make", MAKES)
def test_a_large_model_is_written_in_parts(saved: Callable[..., Path], make: str) -> None:
    module = module_of(make)
    folder = saved(module, max_shard_bytes=4000)
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 2
    index = json.loads((folder / INDEX).read_text())
    assert {folder / name for name in index["weight_map"].values()} == set(files)
    total = 0
    for path in files:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}  # without it transformers 4 reads nothing
        assert {index["weight_map"][name] for name in tensors} == {path.name}
        n_bytes = sum(tensor.nbytes for tensor in tensors.values())
        assert n_bytes <= 4000 or len(tensors) == 1
        total += n_bytes
    assert index["metadata"]["total_size"] == total
    again = started(folder, module.signature.task)
    load_weights(again, folder)
    assert equal(module, again)


def test_classes_keep_their_names(saved: Callable[..., Path]) -> None:
    stored = json.loads((saved("bert", classes=["bad", "fair", "good"]) / "config.json").read_text())
    assert stored["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
    assert stored["label2id"] == {"bad": 0, "fair": 1, "good": 2}
    assert stored["architectures"] == ["BertForSequenceClassification"]
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        saved("bert", classes=["bad", "good"])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_become_of_the_type_of_the_module(saved: Callable[..., Path], kind: torch.dtype) -> None:
    folder = saved("gpt2")
    change_tensors(folder, lambda tensors: tensors.update({k: v.to(kind) for k, v in tensors.items()}))
    module = started(folder, LANGUAGE)
    load_weights(module, folder)
    wanted = module_of("gpt2")
    for name, parameter in module.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, wanted.get_parameter(name).to(kind).float())


def test_old_files_of_bert_are_read(saved: Callable[..., Path]) -> None:
    folder = saved("bert")

    def make_old(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            old = name.removeprefix("bert.")
            old = old.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)
        tensors["embeddings.position_ids"] = torch.arange(12)[None]

    change_tensors(folder, make_old)
    module = started(folder, CLASSIFY)
    assert load_weights(module, folder) == Loaded((), ())
    assert equal(module, module_of("bert"))


def test_a_copy_of_a_tied_tensor_stands_for_it_and_must_be_the_same(saved: Callable[..., Path]) -> None:
    folder, tokens = saved("qwen2"), "model.embed_tokens.weight"
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[tokens].clone()}))
    module = started(folder, LANGUAGE)
    assert load_weights(module, folder) == Loaded((), ())
    change_tensors(folder, lambda tensors: tensors.pop(tokens))
    module = started(folder, LANGUAGE)
    load_weights(module, folder)
    assert equal(module, module_of("qwen2"))
    change_tensors(folder, lambda tensors: tensors.update({tokens: tensors["lm_head.weight"] + 1}))
    with pytest.raises(CorruptError, match=r"lm_head.weight is not the same as model.embed_tokens.weight"):
        load_weights(module, folder)


def test_our_own_folders_are_read_too(tmp_path: Path, tokenizer: Tokenizer) -> None:
    module = module_of("bert", MASKED)
    save_module(tmp_path, module)
    save_tokenizer(tmp_path / "tokenizer.json", tokenizer)
    again = started(tmp_path, CLASSIFY)
    assert again.config == module.config
    assert load_weights(again, tmp_path) == Loaded(("head.linear.weight", "head.linear.bias"), ())
    assert torch.equal(again.get_parameter("pooler.linear.weight"), module.get_parameter("pooler.linear.weight"))


# Heads of other tasks


def test_the_head_of_another_task_is_drawn_and_shown(saved: Callable[..., Path]) -> None:
    folder = saved(module_of("bert", MASKED))
    module = started(folder, CLASSIFY)
    drawn = module.get_parameter("head.linear.weight").clone()
    loaded = load_weights(module, folder)
    assert loaded.new == ("head.linear.weight", "head.linear.bias")
    assert "cls.seq_relationship.weight" in loaded.left_out
    assert len(loaded.left_out) == 7
    assert torch.equal(module.get_parameter("head.linear.weight"), drawn)
    assert torch.equal(
        module.get_parameter("pooler.linear.bias"), module_of("bert", MASKED).get_parameter("pooler.linear.bias")
    )


def test_a_head_for_other_classes_is_left_out(saved: Callable[..., Path]) -> None:
    folder = saved("bert")
    loaded = load_weights(started(folder, CLASSIFY, n_classes=N + 1), folder)
    assert loaded == Loaded(("head.linear.weight", "head.linear.bias"), ("classifier.bias", "classifier.weight"))


def test_a_head_that_stood_on_another_pooling_is_left_out(saved: Callable[..., Path]) -> None:
    folder = saved("bert")
    loaded = load_weights(started(folder, CLASSIFY, pooling="mean"), folder)
    assert loaded.new == ("head.linear.weight", "head.linear.bias")
    assert set(loaded.left_out) == {
        *("bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight")
    }


def test_half_a_head_is_an_error(saved: Callable[..., Path]) -> None:
    folder = change_tensors(saved("bert"), lambda tensors: tensors.pop("classifier.bias"))
    with pytest.raises(CorruptError, match=r"^classifier.bias is missing"):
        load_weights(started(folder, CLASSIFY), folder)


def test_a_language_model_never_gets_a_drawn_head(saved: Callable[..., Path]) -> None:
    folder = change_tensors(saved("llama"), lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CorruptError, match=r"^lm_head.weight is missing"):
        load_weights(started(folder, LANGUAGE), folder)


def test_a_model_that_sees_shorter_texts_takes_the_first_positions(saved: Callable[..., Path]) -> None:
    folder = saved("gpt2")
    module = started(folder, LANGUAGE, max_len=5)
    load_weights(module, folder)
    wanted = module_of("gpt2").get_parameter("embedding.positions.vectors.weight")[:5]
    assert torch.equal(module.get_parameter("embedding.positions.vectors.weight"), wanted)
    with pytest.raises(UsageError, match="the checkpoint has 12 positions, max_len is 13"):
        load_weights(started(folder, LANGUAGE, max_len=13), folder)


# Damaged weights

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(Q), rf"^{Q} is missing \(1 tensors are\)"),
        (lambda tensors: tensors.update(bonus=torch.zeros(2)), r"^bonus has no place in this model \(1 tensors"),
        (lambda tensors: tensors.update({Q: tensors[Q][:7]}), rf"^{Q} is \[7, 16\] where \[16, 16\] is due"),
        (lambda tensors: tensors.update({Q: tensors[Q].to(torch.int8)}), rf"^{Q} holds I8, which danlu does not read"),
        (lambda tensors: tensors.update({"embed_tokens.weight": torch.zeros(V, 16)}), r"is there twice"),
    ],
)
def test_a_wrong_tensor_is_named_and_nothing_is_changed(
    saved: Callable[..., Path], change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    folder = change_tensors(saved("llama"), change)
    module = started(folder, LANGUAGE)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CorruptError, match=message) as caught:
        load_weights(module, folder)
    assert caught.value.where == str(folder / WEIGHTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64, b'\x08\0\0\0\0\0\0\0{"a": 1'])
def test_a_file_that_only_looks_like_safetensors(saved: Callable[..., Path], content: bytes) -> None:
    folder = saved("qwen3")
    module = started(folder, LANGUAGE)
    whole = (folder / WEIGHTS).read_bytes()
    for damaged in (content, whole[: len(whole) // 2], whole[:-1]):
        (folder / WEIGHTS).write_bytes(damaged)
        with pytest.raises(CorruptError, match="not a safetensors file"):
            load_weights(module, folder)


def test_a_pickle_is_not_read(saved: Callable[..., Path]) -> None:
    folder = saved("qwen3")
    module = started(folder, LANGUAGE)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UsageError, match=f"there is no {WEIGHTS}"):
        load_weights(module, folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin is a pickle") as caught:
        load_weights(module, folder)
    assert "save_pretrained" in str(caught.value.advice)


def test_wrong_parts(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("llama", max_shard_bytes=4000)
    module, index = started(folder, LANGUAGE), json.loads((folder / INDEX).read_text())

    def refused(weight_map: Any, message: str) -> None:
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CorruptError, match=message):
            load_weights(module, folder)

    places = index["weight_map"]
    (tmp_path / "outside.safetensors").write_bytes(next(folder.glob("*.safetensors")).read_bytes())
    refused({**places, Q: "../outside.safetensors"}, "is not the name of a file beside it")
    refused({**places, Q: 3}, "is not the name of a file beside it")
    refused({**places, Q: "other.safetensors"}, "the file is missing")
    refused({**places, "bonus": places[Q]}, "bonus is missing")
    refused({}, "the index names no tensors")
    refused([], "the index names no tensors")
    (folder / INDEX).write_text(json.dumps(index))
    (folder / places[Q]).unlink()
    with pytest.raises(CorruptError, match="the file is missing") as caught:
        load_weights(module, folder)
    assert caught.value.where == str(folder / places[Q])


# A module that does not fit


def test_a_module_of_another_make_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    module = started(folder, LANGUAGE, rope_base=10000.0)
    with pytest.raises(UsageError, match=r"rope_base is 500\.0 in the checkpoint and 10000\.0 in the model"):
        load_weights(module, folder)
    with pytest.raises(UsageError, match="the checkpoint is a gpt, the model a bert"):
        load_weights(module_of("bert"), folder)
    with pytest.raises(UsageError, match="this checkpoint, a gpt, is not for text-classification"):
        read_config(folder, CLASSIFY)


def test_a_vocabulary_of_another_size_is_refused(saved: Callable[..., Path], tokenizer: Tokenizer) -> None:
    folder = saved("llama")
    config = read_config(folder, LANGUAGE)
    module = build_module(config, Signature(task=LANGUAGE, vocab_size=V - 1))
    with pytest.raises(UsageError, match=rf"has vectors for {V} tokens, the model for {V - 1}"):
        load_weights(module, folder)
    change_config(folder, vocab_size=V - 1)
    with pytest.raises(UsageError, match=rf"the tokenizer has {V} tokens and the checkpoint vectors for {V - 1}"):
        read_signature(folder, tokenizer, LANGUAGE)
    # Vectors that are padded to a round number are fine.
    change_config(folder, vocab_size=V + 24)
    assert read_signature(folder, tokenizer, LANGUAGE).vocab_size == V + 24


# config.json


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        ("llama", {"model_type": "lama"}, r"no architecture 'lama'; it has bert, gpt2, llama, qwen2, qwen3"),
        ("llama", {"model_type": "lama"}, "did you mean 'llama'"),
        ("llama", {"model_type": ...}, "names no model_type"),
        ("llama", {"auto_map": {"AutoModel": "code.Model"}}, "brings code of its own"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type = 'yarn', only default or llama3"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type = 'linear'"),
        ("llama", {"rope_parameters": {"rope_type": "default", "mrope_section": [1]}}, "rope_scaling.mrope_section"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
        ("llama", {"mlp_bias": False}, "mlp_bias = False, only True as attention_bias"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu', only silu or swish"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window = True, only False"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("qwen3", {"attention_bias": True}, "attention_bias = True, only False"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights = False, only True"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"activation_function": "silu"}, "activation_function = 'silu'"),
        ("bert", {"position_embedding_type": "relative_key"}, "= 'relative_key', only absolute"),
        ("bert", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("bert", {"is_decoder": True}, "is_decoder = True, only False"),
        ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
    ],
)
def test_what_danlu_does_not_do_exactly_is_refused(
    saved: Callable[..., Path], make: str, changes: dict[str, Any], message: str
) -> None:
    folder = change_config(saved(make), **changes)
    with pytest.raises(UsageError, match=message) as caught:
        read_config(folder, CLASSIFY if make == "bert" else LANGUAGE)
    assert caught.value.where == str(folder / "config.json")


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        ("bert", {"hidden_size": ...}, "hidden_size is missing"),
        ("bert", {"hidden_size": "16"}, "hidden_size is '16', not a size"),
        ("bert", {"num_attention_heads": 0}, "num_attention_heads is 0, not a size"),
        ("bert", {"num_attention_heads": 5}, "not a multiple of n_heads=5"),
        ("bert", {"layer_norm_eps": -1}, "norm_eps: Input should be greater than 0"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "rope_scaling of llama3 is not whole"),
        ("llama", {"rope_scaling": "llama3"}, "rope_scaling is not a JSON object"),
    ],
)
def test_a_damaged_config_is_named(
    saved: Callable[..., Path], make: str, changes: dict[str, Any], message: str
) -> None:
    folder = change_config(saved(make), **changes)
    with pytest.raises(CorruptError, match=message):
        read_config(folder, CLASSIFY if make == "bert" else LANGUAGE)


def test_keys_that_newer_files_write_are_read(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    wanted = read_config(folder, LANGUAGE)
    stored = json.loads((folder / "config.json").read_text())
    rope = {**stored["rope_scaling"], "rope_theta": stored["rope_theta"]}
    change_config(folder, rope_theta=..., rope_scaling=..., rope_parameters=rope)
    assert read_config(folder, LANGUAGE) == wanted


def test_no_folder_and_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        read_config(tmp_path / "none", LANGUAGE)
    with pytest.raises(UsageError, match=r"there is no config\.json in this folder"):
        read_config(tmp_path, LANGUAGE)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CorruptError, match="not a JSON object"):
        read_config(tmp_path, LANGUAGE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**9) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def stored() -> dict[str, dict[str, Any]]:
    """The ``config.json`` of every make, with every key that may be refused."""
    more: dict[str, Any] = {"layer_types": None, "rope_parameters": None, "auto_map": None, "vocab_size": V}
    found = {}
    for make in MAKES:
        module = module_of(make)
        architecture = architecture_of(module.config)
        found[make] = {**more, **architecture.fixed, **their_config(module, architecture)}
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(make=st.sampled_from(sorted(MAKES)), data=st.data(), value=JSON)
def test_whatever_a_config_says_the_answer_is_a_config_or_a_clear_error(
    tmp_path: Path, stored: dict[str, dict[str, Any]], make: str, data: st.DataObject, value: Any
) -> None:
    key = data.draw(st.sampled_from(sorted(stored[make])))
    (tmp_path / "config.json").write_text(json.dumps({**stored[make], key: value}))
    with contextlib.suppress(DanluError):
        assert read_config(tmp_path, CLASSIFY if make == "bert" else LANGUAGE).family in ("bert", "gpt")


# Export


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        ("bert", {"positions": "rotary"}, "positions is rotary where bert has learned"),
        ("bert", {"norm_first": True}, "norm_first is True where bert has False"),
        ("bert", {"pooling": "mean"}, "pooling is mean where bert has first"),
        ("bert", {"n_segments": 0}, "n_segments is 0 where bert has 2"),
        ("bert", {"activation": "swiglu"}, "activation is swiglu where bert has gelu"),
        ("gpt2", {"norm": "rms"}, "norm is rms where gpt2 has layer"),
        ("gpt2", {"n_kv_heads": 2}, "n_kv_heads is 2 where gpt2 has 4"),
        ("qwen3", {"qkv_bias": True}, "qk_norm is True where qwen2 has False"),
        ("llama", {"activation": "gelu"}, "activation is gelu where llama has swiglu"),
        ("llama", {"d_model": 18, "d_head": 4}, "d_model is 18 where llama has 16"),
    ],
)
def test_a_model_without_a_counterpart_is_not_exported(
    saved: Callable[..., Path], make: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        saved(module_of(make, **changes))


def test_a_family_without_a_counterpart_is_not_exported(tmp_path: Path, tokenizer: Tokenizer) -> None:
    module = Gru(
        GruConfig(family="gru", d_model=8, n_layers=1, d_hidden=8), Signature(task=CLASSIFY, vocab_size=V, n_classes=2)
    )
    with pytest.raises(UsageError, match="no counterpart of a gru") as caught:
        save_pretrained(module, tokenizer, tmp_path / "out")
    assert caught.value.advice == "these have: bert, gpt"


def test_adapters_are_not_exported_with_the_model(saved: Callable[..., Path]) -> None:
    module = module_of("llama")
    add_adapters(module, LoraConfig())
    with pytest.raises(UsageError, match=r"no counterpart of blocks\.0\.attention\.q") as caught:
        saved(module)
    assert "merge" in str(caught.value.advice)


def test_a_qwen2_keeps_its_tokenizer_or_is_not_exported(tmp_path: Path) -> None:
    other = train_tokenizer(["one two three four five six"] * 5, TokenizerConfig(vocab_size=300))
    with pytest.raises(UsageError, match="as if it were Qwen's own"):
        save_pretrained(module_of("qwen2"), other, tmp_path / "out")


def test_a_folder_is_written_whole_or_not_at_all(
    saved: Callable[..., Path], tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("gpt2")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="the folder is there already"):
        save_pretrained(module_of("gpt2", n_layers=1), tokenizer, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def fail(*_: Any, **__: Any) -> None:
        raise DanluError("the disk is full")

    monkeypatch.setattr("danlu.model.pretrained.save.save_tensors", fail)
    with pytest.raises(DanluError, match="the disk is full"):
        save_pretrained(module_of("gpt2"), tokenizer, tmp_path / "half")
    assert not (tmp_path / "half").exists()
    assert not list(tmp_path.glob(".scratch-*"))


@pytest.mark.parametrize(
    ("make", "path", "theirs"),
    [
        ("bert", "blocks.11.attention.q", "bert.encoder.layer.11.attention.self.query"),
        ("bert", "head.linear", "classifier"),
        ("gpt2", "blocks.0.attention.v", "transformer.h.0.attn.c_attn"),
        ("gpt2", "head.linear", "lm_head"),
        ("llama", "blocks.7.feedforward.gate", "model.layers.7.mlp.gate_proj"),
        ("qwen3", "blocks.7.attention.q_norm", "model.layers.7.self_attn.q_norm"),
    ],
)
def test_paths_are_renamed(make: str, path: str, theirs: str) -> None:
    assert renamer(module_of(make))(path) == theirs


def test_a_path_without_a_counterpart_is_a_key_error() -> None:
    rename = renamer(module_of("bert", MASKED))
    assert rename("head") == "cls.predictions"
    # head.pair has one, but with its rows in the other order, which a name alone cannot say.
    for path in ("blocks.0.attention", "head.pair", "nothing"):
        with pytest.raises(KeyError):
            rename(path)


# Tokenizers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##happy", "cafe", "café", "Cafe", "好", "!"]


def write_words(folder: Path, **settings: Any) -> Path:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_vocabulary_of_word_pieces_is_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write_words(tmp_path))
    assert tokenizer.encode("Unhappy café好!").ids == [2, 5, 6, 7, 10, 11, 3]
    assert tokenizer.encode("what").ids == [2, 1, 3]
    assert tokenizer.encode("un", "好").type_ids == [0, 0, 0, 1, 1]
    assert tokenizer.decode([2, 5, 6, 3]) == "unhappy"
    special = read_special_tokens(tmp_path, tokenizer)
    assert (special.mask, special.begin, special.end) == (4, 2, 3)
    # A text that spells a special token does not mean it.
    assert 4 not in tokenizer.encode("[MASK]").ids


def test_the_settings_of_word_pieces_are_kept(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write_words(tmp_path, do_lower_case=False, tokenize_chinese_chars=False))
    assert tokenizer.encode("Cafe café 好").ids == [2, 9, 8, 10, 3]
    assert tokenizer.encode("café好").ids == [2, 1, 3]
    assert read_tokenizer(write_words(tmp_path, strip_accents=False)).encode("CAFÉ").ids == [2, 8, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_basic_tokenize": False}, "do_basic_tokenize = False"),
        ({"never_split": ["x"]}, "never_split"),
        ({"added_tokens_decoder": {"12": {"content": "<new>"}}}, "'<new>' is added to the vocabulary"),
    ],
)
def test_settings_that_danlu_does_not_do_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_tokenizer(write_words(tmp_path, **settings))


def test_settings_that_change_nothing_are_not(tmp_path: Path) -> None:
    listed = {"4": {"content": "[MASK]"}}
    assert read_tokenizer(write_words(tmp_path, never_split=None, added_tokens_decoder=listed)).get_vocab_size() == 12


def test_a_vocabulary_without_its_special_tokens_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(CorruptError, match=r"lacks \[UNK\]"):
        read_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(CorruptError, match="not a vocabulary"):
        read_tokenizer(tmp_path)


def write_pairs(folder: Path, model_type: str) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<|endoftext|>", *letters, "Ġh", "Ġhi"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ h\nĠh i\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": len(vocabulary)}))
    return folder


def test_byte_pairs_are_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write_pairs(tmp_path, "gpt2"))
    assert tokenizer.encode("a hi").tokens == ["a", "Ġhi"]
    assert tokenizer.decode(tokenizer.encode("好 😀\n<|endoftext|>").ids) == "好 😀\n<|endoftext|>"
    special = read_special_tokens(tmp_path, tokenizer)
    assert (special.begin, special.end) == (0, 0)
    assert tokenizer.id_to_token(0) == "<|endoftext|>"


def test_byte_pairs_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no tokenizer of qwen2 from vocab\.json"):
        read_tokenizer(write_pairs(tmp_path, "qwen2"))
    write_pairs(tmp_path, "gpt2")
    (tmp_path / "merges.txt").write_text("one\n")
    with pytest.raises(CorruptError, match="not a vocabulary"):
        read_tokenizer(tmp_path)


def test_no_tokenizer_and_one_of_sentencepiece(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no tokenizer"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\n")
    with pytest.raises(UsageError, match=r"does not read tokenizer\.model"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptError, match="not a tokenizer"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_neither_cuts_nor_pads(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made = Tokenizer.from_str(tokenizer.to_str())
    made.enable_truncation(3)
    made.enable_padding(length=8)
    made.save(str(tmp_path / "tokenizer.json"))
    assert len(read_tokenizer(tmp_path).encode("ABCDE").ids) == 5
    assert len(read_tokenizer(tmp_path).encode("A").ids) == 1


@pytest.mark.parametrize(
    ("files", "begin", "end"),
    [
        ({}, 2, 3),
        ({"tokenizer_config.json": {"bos_token": "A", "eos_token": {"content": "B"}}}, 5, 6),
        ({"special_tokens_map.json": {"bos_token": {"content": "C"}, "eos_token": "D"}}, 7, 8),
        ({"tokenizer_config.json": {"bos_token": None}, "generation_config.json": {"bos_token_id": 9}}, 9, 3),
        ({"generation_config.json": {"eos_token_id": [11, 12]}}, 2, 11),
        ({"config.json": {"bos_token_id": 13, "eos_token_id": 50256}}, 13, 3),
        ({"tokenizer_config.json": {"eos_token": "A"}, "generation_config.json": {"eos_token_id": 9}}, 2, 5),
    ],
)
def test_special_tokens_are_those_that_the_folder_names(
    tmp_path: Path, tokenizer: Tokenizer, files: dict[str, Any], begin: int, end: int
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    special = read_special_tokens(tmp_path, tokenizer)
    assert (special.begin, special.end, special.mask) == (begin, end, 4)


def test_a_tokenizer_is_written_with_its_special_tokens(saved: Callable[..., Path], tokenizer: Tokenizer) -> None:
    folder = saved("llama")
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    assert (stored["bos_token"], stored["eos_token"], stored["pad_token"]) == ("<cls>", "<sep>", "<pad>")
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    again = read_tokenizer(folder)
    assert again.encode("AB", add_special_tokens=False).ids == [5, 6]
    assert again.encode("AB").ids == [2, 5, 6]  # texts are trained on after a begin token
    assert tokenizer.encode("AB").ids == [5, 6]


def test_word_pieces_are_written_as_a_list_too(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    tokenizer = read_tokenizer(write_words(tmp_path / "from"))
    config = module_of("bert").config
    signature = Signature(task=CLASSIFY, vocab_size=12, mask_token=4, begin_token=2, end_token=3, n_classes=2)
    module = build_module(config, signature)
    initialise(module, Seeds.new("1"))
    save_pretrained(module, tokenizer, tmp_path / "to")
    assert (tmp_path / "to" / "vocab.txt").read_bytes() == (tmp_path / "from" / "vocab.txt").read_bytes()
    assert read_tokenizer(tmp_path / "to").encode("Unhappy 好").ids == [2, 5, 6, 10, 3]
