"""What answers, from a folder: models of ours, and checkpoints in Hugging Face layout beside transformers itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers import models as kinds
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from audit_models import drawn, folder_of
from danlu.audit.speaker import LocalSpeaker, _seen, open_speaker
from danlu.model.ngram import NgramConfig, NgramModel

WORDS = ["<s>", "</s>", *(f"w{number}" for number in range(48))]
TEXTS = ["w1 w2 w3 w4", "w9 w8", "w5 w40 w41 w42 w43 w44"]


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(kinds.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def opened(folder: Path) -> LocalSpeaker:
    found = open_speaker(folder)
    assert isinstance(found, LocalSpeaker), found
    return found


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    write_tokenizer(tmp_path / "llama")
    return tmp_path / "llama"


def test_a_llama_of_transformers_answers_and_loses_as_it_does_there(llama: Path) -> None:
    speaker = opened(llama)
    theirs = LlamaForCausalLM.from_pretrained(llama).eval()
    ids = [[0, *(WORDS.index(word) for word in text.split())] for text in TEXTS]
    with torch.inference_mode():
        logits = [theirs(torch.tensor([row])).logits[0].log_softmax(-1) for row in ids]
    assert speaker.task == "language-modelling"
    words = [WORDS[int(each[-1].argmax())] for each in logits]
    assert [each.strip() for each in speaker.answers(TEXTS)] == ["" if word == "</s>" else word for word in words]
    losses = speaker.losses(TEXTS)
    due = [
        -sum(float(each[place, after]) for place, after in enumerate([*row[1:], 1]))
        for each, row in zip(logits, ids, strict=True)
    ]
    assert losses == pytest.approx(due, rel=1e-4)


def test_a_prompt_that_is_too_long_is_answered_by_its_end(llama: Path) -> None:
    speaker = opened(llama)
    end = " ".join(f"w{number}" for number in range(10))
    assert speaker.answers([f"{'w7 ' * 60}{end}"])[0] is not None
    model = speaker.read()
    seen = _seen(model, "w7 " * 60 + end)
    assert model.count_tokens([seen])[0] < 16
    assert seen.endswith("w8 w9")
    assert _seen(model, "w1 w2") == "w1 w2"


def test_a_classifier_of_transformers_names_the_class(tmp_path: Path) -> None:
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        id2label={0: "good", 1: "bad", 2: "ugly"},
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    write_tokenizer(tmp_path / "bert")
    speaker = opened(tmp_path / "bert")
    theirs = BertForSequenceClassification.from_pretrained(tmp_path / "bert").eval()
    with torch.inference_mode():
        logits = [
            theirs(torch.tensor([[WORDS.index(word) for word in text.split()]])).logits[0].log_softmax(-1)
            for text in TEXTS
        ]
    assert speaker.task == "text-classification"
    assert speaker.answers(TEXTS) == [("good", "bad", "ugly")[int(each.argmax())] for each in logits]
    losses = speaker.losses(TEXTS, ["ugly", "good", "bad"])
    assert losses == pytest.approx([-float(each[n]) for each, n in zip(logits, (2, 0, 1), strict=True)], rel=1e-3)
    assert "not those of the reference" in str(speaker.losses(TEXTS, ["ugly", "good", "new"]))
    stored = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps(stored | {"id2label": {"0": "good", "2": "x"}}))
    assert "does not name the classes" in str(open_speaker(tmp_path / "bert"))
    (tmp_path / "bert" / "config.json").write_text(json.dumps(stored | {"model_type": "new"}))
    assert "no architecture 'new'" in str(open_speaker(tmp_path / "bert"))


def test_what_does_not_answer_by_itself_says_why(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    write_tokenizer(tmp_path / "bert")
    assert "hidden tokens" in str(open_speaker(tmp_path / "bert"))
    (tmp_path / "5-gram").mkdir()
    NgramModel(NgramConfig()).fit(["abc", "abd"]).save(tmp_path / "5-gram")
    facts = {"task": "language-modelling", "family": "5-gram", "classes": [], "clean": {}}
    (tmp_path / "5-gram" / "model.json").write_text(json.dumps(facts))
    assert "draws what it writes" in str(open_speaker(tmp_path / "5-gram"))


def test_a_folder_of_ours_without_the_facts_of_its_making_answers_too(tmp_path: Path) -> None:
    speaker = opened(folder_of(tmp_path / "ours", drawn("a")))
    assert len(speaker.answers(["w1 w2", "w3"])) == 2
    losses = speaker.losses(["w1 w2", "w3"])
    assert isinstance(losses, np.ndarray)
    assert (losses > 0).all()
