"""The records of every step: the rows of the dataset, however texts are cut, and the root that stands for them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from danlu.core.merkle import merkle_root
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.data.stage import DataConfig, build_dataset, read_split
from danlu.train import classification, language, pretrain, translation
from danlu.train.config import TrainConfig
from danlu.train.examples import load_texts
from danlu.train.feed import PlannedFeed
from danlu.train.order import run_order
from small import DATA, made_up, make_dataset, material_of, spec_of, write_csv


def feed_of(lengths, seed="1", records=None, **train):
    config = TrainConfig(**{"epochs": 2, "batch_tokens": 64} | train)
    return PlannedFeed(lengths, lambda rows, _: rows, config, Seeds.new(seed), records=records)


def test_the_root_is_that_of_the_steps_records_and_moves_with_any_of_them():
    lengths = np.arange(1, 30)
    records = np.arange(29) // 2
    feed = feed_of(lengths, records=records)
    leaves = [records[feed.rows(step)].astype("<i8").tobytes() for step in range(feed.n_steps)]
    assert feed.order_root == merkle_root(leaves)
    assert merkle_root([*leaves[:-2], leaves[-1], leaves[-2]]) != feed.order_root
    roots = {
        feed_of(lengths, **different).order_root
        for different in (
            {},
            {"seed": "2"},
            {"epochs": 3},
            {"max_steps": 5},
            {"batch_tokens": 60},
            {"records": records},
        )
    }
    assert len(roots) == 6
    assert feed_of(lengths, records=np.arange(29)).order_root == feed_of(lengths).order_root


def test_a_root_never_drifts():
    root = feed_of(np.arange(200) * 37 % 97 + 1, batch_tokens=512).order_root
    assert root == "c5e867096cffa39bacbe27dc1b4ce09f3cc9e8db93569c69bf3da81a457c121a"


def test_every_epoch_is_kept_with_its_batches_as_units(tmp_path):
    _, dataset = make_dataset(tmp_path, made_up(60))
    spec = spec_of(tmp_path, "gpt", task="language-modelling", train={"epochs": 3, "max_steps": 9, "batch_tokens": 256})
    order = run_order(language.prepare(material_of(dataset, spec)))
    assert len(order.batches) == order.n_taken == 9
    assert [len(epoch) for epoch in order.epochs] == [len(order.epochs[0])] * (len(order.epochs) - 1) + [
        9 - len(order.epochs[0]) * (len(order.epochs) - 1)
    ]


def test_windows_count_for_the_texts_that_they_are_of(tmp_path):
    _, dataset = make_dataset(tmp_path, made_up(60))
    spec = spec_of(tmp_path, "gpt", task="language-modelling", model={"max_len": 8}, train={"epochs": 2})
    prepared = language.prepare(material_of(dataset, spec))
    texts = load_texts(dataset, "train")
    tokenizer = prepared.answerer.tokenizer
    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in texts]
    n_windows = Counter({row: -(-length // 8) for row, length in enumerate(lengths)})
    assert max(n_windows.values()) > 1
    for epoch in run_order(prepared).epochs:
        assert Counter(np.concatenate(epoch).tolist()) == n_windows
    for step in range(prepared.feed.n_steps):
        batch = prepared.feed.batch(step)
        rows = zip(batch.tokens_BT, batch.mask_BT, prepared.feed.records(step), strict=True)
        for tokens, mask, record in rows:
            read = tokenizer.decode(tokens[mask].tolist(), skip_special_tokens=True).replace(" ", "")
            assert read.strip("�") in texts[record]  # a window may begin within a character that takes several tokens


def test_pairs_count_one_each(tmp_path):
    _, dataset = make_dataset(tmp_path, made_up(60), task="translation")
    spec = spec_of(tmp_path, "transformer", task="translation", model={"max_len": 8})
    order = run_order(translation.prepare(material_of(dataset, spec)))
    n = len(read_split(dataset, "train", ["text"]))
    assert all(sorted(np.concatenate(epoch).tolist()) == list(range(n)) for epoch in order.epochs)


def test_texts_left_out_of_pretraining_leave_the_numbers_of_the_others_alone(tmp_path):
    workspace, dataset = make_dataset(tmp_path, made_up(60))
    (tmp_path / "other").mkdir()
    held_out = read_split(dataset, "test", ["text"]).column("text").to_pylist()
    write_csv(tmp_path / "other" / "texts.csv", [*((text, "good") for text in held_out), *made_up(60, seed=9)])
    config = DataConfig(**DATA["language-modelling"], split={"valid": 0.2, "test": 0, "seed": 5})
    texts = build_dataset(workspace, "other", config, tmp_path / "other", Silent())
    spec = spec_of(tmp_path, pretrain={"epochs": 2})
    prepared = pretrain.prepare(material_of(texts, spec), held_out=dataset)
    there = load_texts(texts, "train")
    seen = [{there[row] for row in np.concatenate(epoch)} for epoch in run_order(prepared).epochs]
    assert seen == [set(there) - set(held_out)] * 2
    assert set(there) & set(held_out)


def test_the_order_says_nothing_that_the_feed_does_not_do(tmp_path):
    """The rows of the batches themselves, where a record is a row."""
    _, dataset = make_dataset(tmp_path, made_up(60))
    prepared = classification.prepare(material_of(dataset, spec_of(tmp_path)))
    order = run_order(prepared)
    for step, records in enumerate(order.batches):
        assert np.array_equal(prepared.feed.batch(step).rows_B.numpy(), records)
