"""Checkpoints of transformers in our modules and ours in its: answers, gradients, files, tokens.

Everything is float32, and a difference the order of sums. Over 16 configs and 3 seeds the largest measured is 4e-6 of
answers up to 8, and 8e-6 of gradients up to 14; the tolerances leave room for other processors.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import pre_tokenizers

from danlu.core.errors import DataError
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.samples import sample_folder
from danlu.data.tokenizer import TokenizerConfig, special_tokens, train_tokenizer
from danlu.model.adapters import linear_layers
from danlu.model.base import Signature
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import initialise
from danlu.model.pretrained.load import Loaded, load_weights
from danlu.model.pretrained.save import renamer, save_pretrained
from danlu.model.pretrained.tokenizers import read_tokenizer

transformers = pytest.importorskip("transformers")
counterparts = pytest.importorskip("counterparts")

CASES, Case = counterparts.CASES, counterparts.Case
FORWARD, BACKWARD = 2e-5, 4e-5

TRICKY = [
    *("", " ", "\n", "\t\n ", "a\nb", "a\r\nb", "\u3000全角\u3000空格", "a\u00a0b", "zero\u200bwidth"),
    *("春眠不觉晓，处处闻啼鸟。", "中文English混排123", "㐀𠀀𪚥", "ｆｕｌｌｗｉｄｔｈ１２３", "日本語かな カナ"),
    *("한국어", "ไทย", "café", "cafe\u0301", "naïve Zürich Ångström", "İstanbul ıI", "ẞß", "ﬁligature", "Ωμέγα"),
    *("ПРИВЕТ", "שלום", "مرحبا", "soft\u00adhyphen", "\ufffd", "\u0000a", "a\u0007b", "x" * 120, "aaa bbb"),
    *("😀", "\U0001f469\u200d\U0001f467", "🇨🇳🇫🇷", "❤\ufe0f", "x😀y", "\U0001f9d1\U0001f3fd", "…—–", "CamelCase"),
    *("don't stop", "U.S.A.", "C++ & C#", "user@example.com", "3.14159", "1,000,000", "#hashtag", "$5.00", "50%"),
    *("unaffable", "antidisestablishmentarianism", "supercalifragilistic" * 8, "<b>html</b>", "%(name)s {0} &File"),
    *("(brackets)[square]{curly}", "\"quotes\" 'single' “curly”", "///\\\\"),
]
TRICKY += [f"{one} {other}" for one in TRICKY[::3] for other in TRICKY[1::5]]


@pytest.fixture(autouse=True)
def fixed_randomness():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def bert_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT tokenizer's folder as older transformers wrote it: its vocabulary, no tokenizer.json."""
    folder = tmp_path_factory.mktemp("words")
    letters = sorted({letter for text in TRICKY for letter in text.lower() if not letter.isspace()})[::2]
    pieces = ["un", "##aff", "##able", "cafe", "don", "stop", "the", "##ing", "html", "123", "3"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


# Weights


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers_and_gradients_are_those_of_transformers(tmp_path: Path, case: Any, seed: int) -> None:
    module = counterparts.theirs(case, seed)
    found = counterparts.difference(module, counterparts.save(module, tmp_path / "theirs"), case, seed)
    assert found.largest_answer > 1
    assert found.forward < FORWARD
    assert found.largest_gradient > 0.01
    assert found.backward < BACKWARD


@pytest.mark.parametrize(
    ("kind", "family", "task", "new"),
    [
        ("BertModel", "BERT", counterparts.CLASSIFY, 2),
        ("GPT2Model", "GPT-2", counterparts.LANGUAGE, 0),
        ("LlamaModel", "Llama", counterparts.LANGUAGE, 0),
        ("Qwen3Model", "Qwen3", counterparts.LANGUAGE, 0),
    ],
)
def test_a_file_of_the_backbone_alone_is_read(tmp_path: Path, kind: str, family: str, task: Any, new: int) -> None:
    case = Case(family, kind, {"tie_word_embeddings": True}, task)
    module = counterparts.theirs(case, 3)
    folder = counterparts.save(module, tmp_path / "theirs")
    ours = counterparts.ours(folder, task)
    assert len(load_weights(ours, folder).new) == new
    seen = []
    ours.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    texts = counterparts.batch(61, 3, segments=family == "BERT")
    given = {"input_ids": texts.tokens_BT, "attention_mask": texts.mask_BT.long()}
    with torch.inference_mode():
        ours(texts)
        answer = module(**given, **({"token_type_ids": texts.segments_BT} if family == "BERT" else {}))
    torch.testing.assert_close(seen[0][texts.mask_BT], answer.last_hidden_state[texts.mask_BT], atol=FORWARD, rtol=0)
    if family == "BERT":
        torch.testing.assert_close(ours.pooler(seen[0], texts.mask_BT), answer.pooler_output, atol=FORWARD, rtol=0)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_a_large_checkpoint_in_parts_is_the_same(tmp_path: Path, case: Any) -> None:
    module = counterparts.theirs(case, 1)
    whole = counterparts.ours(counterparts.save(module, tmp_path / "whole"), case.task)
    folder = counterparts.save(module, tmp_path / "parts", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    parts = counterparts.ours(folder, case.task)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_it_is(tmp_path: Path, kind: torch.dtype) -> None:
    module = counterparts.theirs(CASES[7], 0).to(kind)
    folder = counterparts.save(module, tmp_path / "theirs")
    ours = counterparts.ours(folder, CASES[7].task)
    assert torch.equal(ours.get_parameter("head.linear.weight"), module.lm_head.weight.float())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_transformers_loads_what_danlu_writes(
    tmp_path: Path, case: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor bit for bit, nothing missing, nothing too many, not a word of warning, and the same tokens."""
    module = counterparts.theirs(case, 2)
    ours = counterparts.ours(counterparts.save(module, tmp_path / "theirs"), case.task)
    letters = counterparts.tokenizer(61)
    save_pretrained(ours, letters, tmp_path / "ours", max_shard_bytes=20_000)
    monkeypatch.setattr(transformers.utils.logging.get_logger("transformers"), "propagate", True)
    (kind,) = json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"]
    with counterparts.quiet():
        again, told = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert {key: value for key, value in told.items() if value} == {}
    assert kind == case.kind or case.kind == "BertForMaskedLM"  # ours judges pairs as well
    found = dict(again.named_parameters())
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, found[name]), name
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert words("abc", add_special_tokens=False)["input_ids"] == letters.encode("abc").ids
    assert words.pad_token_id == 0
    if case.task == counterparts.LANGUAGE:
        assert (words.bos_token_id, words.eos_token_id) == (1, 2)
        assert words("abc")["input_ids"] == [1, *letters.encode("abc").ids]
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_linear_layer_is_renamed_to_one_of_transformers(tmp_path: Path, case: Any) -> None:
    module = counterparts.theirs(case, 0)
    ours = counterparts.ours(counterparts.save(module, tmp_path / "theirs"), case.task)
    rename = renamer(ours)
    for name, layer in linear_layers(ours).items():
        if name != "head.pair" and not (case.kind == "BertForMaskedLM" and name == "pooler.linear"):
            found = module.get_submodule(rename(name))
            assert sorted(found.weight.shape)[0] == min(layer.weight.shape)


# Tokenizers


def test_word_pieces_are_those_of_transformers(bert_words: Path) -> None:
    theirs, ours = transformers.AutoTokenizer.from_pretrained(bert_words), read_tokenizer(bert_words)
    assert len(TRICKY) > 200
    for text in TRICKY:
        assert ours.encode(text).ids == theirs(text)["input_ids"], repr(text)
    pair = theirs("one", "two")
    assert ours.encode("one", "two").ids == pair["input_ids"]
    assert ours.encode("one", "two").type_ids == pair["token_type_ids"]


@pytest.mark.parametrize(
    "setting", [{"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
def test_settings_of_word_pieces_are_those_of_transformers(
    bert_words: Path, tmp_path: Path, setting: dict[str, bool]
) -> None:
    for file in ("vocab.txt", "config.json"):
        (tmp_path / file).write_bytes((bert_words / file).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **setting}))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), read_tokenizer(tmp_path)
    assert [ours.encode(text).ids for text in TRICKY] == theirs(TRICKY)["input_ids"]


def test_byte_pairs_are_those_of_transformers(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "Ġa", "th", "Ġth", "the", "<|endoftext|>"])}
    merges = "#version: 0.2\nĠ a\nt h\nĠ th\nth e\n"
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), read_tokenizer(tmp_path)
    for text in (*TRICKY, "the then a"):
        assert ours.encode(text).ids == theirs(text)["input_ids"], repr(text)


@pytest.mark.parametrize("kind", ["char-bpe", "bpe", "char"])
def test_transformers_splits_texts_as_our_own_tokenizers_do(tmp_path: Path, kind: Any) -> None:
    ours = train_tokenizer([text for text in TRICKY for _ in range(4)], TokenizerConfig(kind=kind, vocab_size=1000))
    special = special_tokens(ours)
    signature = Signature(
        task=counterparts.LANGUAGE,
        vocab_size=ours.get_vocab_size(),
        begin_token=special.begin,
        end_token=special.end,
    )
    module = Gpt(GptConfig(family="gpt", d_model=8, n_layers=1, n_heads=1, d_ff=8, max_len=512), signature)
    initialise(module, Seeds.new("1"))
    save_pretrained(module, ours, tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for text in TRICKY:
        ids = ours.encode(text).ids
        assert theirs(text)["input_ids"] == [special.begin, *ids], repr(text)
        assert theirs.decode([special.begin, *ids, special.end], skip_special_tokens=True) == ours.decode(ids)


# Real weights


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The fetched sample: ``danlu fetch minilm``."""
    try:
        return sample_folder("minilm", Workspace().samples)
    except DataError:
        pytest.skip("the sample minilm is not in this workspace")


def test_minilm_answers_as_in_transformers(minilm: Path) -> None:
    # Measured over all 285 texts: vectors, up to 6, the same to the last bit; gradients, up to 0.8, 4e-7 apart.
    with counterparts.quiet():
        module = transformers.BertModel.from_pretrained(minilm, dtype=torch.float32).eval()
    found, told = counterparts.backbone_difference(module, minilm, TRICKY[::4])
    assert told == Loaded(("head.linear.weight", "head.linear.bias"), ())
    assert found.largest_answer > 1
    assert found.forward < FORWARD
    assert found.backward < BACKWARD


def test_minilm_splits_texts_as_in_transformers(minilm: Path, tmp_path: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)
    for file in ("vocab.txt", "config.json", "tokenizer_config.json"):
        os.link(minilm / file, tmp_path / file)
    for ours in (read_tokenizer(minilm), read_tokenizer(tmp_path)):
        for text in TRICKY:
            assert ours.encode(text).ids == theirs(text)["input_ids"], repr(text)
