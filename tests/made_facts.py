"""A made-up model artifact and what there is to say of it, for what reads statements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from danlu.audit.record.statement import training_statement
from danlu.audit.record.tensors import tensor_root
from danlu.core.artifact import Artifact, create

__all__ = ["FACTS", "make_model", "make_statement"]

PARENT = {
    "role": "start",
    "relation": "fine-tuned from",
    "name": "sample:minilm",
    "digest": "b" * 64,
    "licence": "Apache-2.0",
}
SOURCE = {
    "name": "texts.jsonl",
    "digest": "sha256",
    "value": "c" * 64,
    "bytes": 100,
    "records": 7,
    "licence": None,
    "class": "the user's own, not stated further",
}
DATA = {
    "role": "dataset",
    "digest": "d" * 64,
    "name": "tiny",
    "version": "0.1.0",
    "sources": [SOURCE],
    "columns": {"text": "text"},
    "cleaning": {"pii": "mask", "dedup": "near"},
    "records": {"read": 9, "kept": 7, "dropped": {"pii": 2}, "splits": {"train": 5, "valid": 1, "test": 1}},
    "files": {"train.parquet": "e" * 64},
    "merkle_root": "f" * 64,
}
FACTS: dict[str, Any] = {
    "model": {
        "kind": "model",
        "task": "text-classification",
        "family": "bert",
        "valid_score": 0.9,
        "n_parameters": 1000,
        "seconds": 3.5,
    },
    "lineage": {
        "from_scratch": False,
        "claim": "fine-tuned from sample:minilm",
        "parents": [PARENT],
        "tokenizer": {"origin": "that of the checkpoint it starts from", "sha256": "a" * 64},
        "teachers": {"models": [], "synthetic_sources": [], "said": "none known"},
    },
    "data": [DATA, {"role": "texts", "digest": "1" * 64, "name": "texts"}],
    "commitments": {"init": "2" * 64},
    "chain": {"file": "chain.jsonl", "lines": 5, "head": "3" * 64, "order_root": "4" * 64},
    "evaluations": [
        {
            "digest": "5" * 64,
            "primary": "macro_f1",
            "metrics": {"macro_f1": {"value": 0.91, "low": 0.9, "high": 0.92, "n": 500}},
        }
    ],
    "code": {"version": "0.1.0", "sha256": "6" * 64, "commit": "7" * 40, "dirty": True},
    "packages": {"danlu": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0"},
    "environment": {"at_the_end": {"python": "3.11.7"}, "of_the_record": {}, "one_process": True},
}


def make_model(root: Path) -> Artifact:
    """A model with one tensor."""
    config = {"task": "text-classification", "model": {"family": "bert", "from": "sample:minilm"}}
    with create(root, "model", "tiny", key="k" * 64, config=config, parents={"start": "b" * 64}) as draft:
        save_file({"a": torch.ones(2)}, draft.folder / "model.safetensors")
    return draft.artifact


def make_statement(root: Path) -> dict[str, Any]:
    """The statement about it."""
    model = make_model(root)
    return training_statement(model, FACTS, tensor_root(model.path))
