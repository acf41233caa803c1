from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from danlu.core.errors import DanluError
from danlu.core.progress import Silent
from danlu.data.batches import Tokens
from danlu.model.predictor import load_predictor
from danlu.train import classification, cooccurrence, pretrain
from danlu.train.baseline import BASELINES, train_baseline
from danlu.train.consistency import disagreement
from danlu.train.ensemble import train_ensemble
from danlu.train.plan import plan_training
from danlu.train.prepare import Sources
from danlu.train.profile import TABLE, TRACE
from danlu.train.stage import train_model
from danlu.train.tasks import TRAINING
from small import FAMILY, SCORE, Listener, make_dataset, material_of, spec_of


@pytest.fixture
def world(tmp_path):
    workspace, dataset = make_dataset(tmp_path)

    def train(spec, progress=None):
        return train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, progress or Silent())

    return SimpleNamespace(workspace=workspace, dataset=dataset, folder=tmp_path, train=train)


def test_a_model_says_where_it_came_from(world):
    spec = spec_of(world.folder, pretrain={"epochs": 1})
    model = world.train(spec)
    (pretrained,) = world.workspace.all("pretrained")
    assert model.manifest["parents"] == {"dataset": world.dataset.digest, "pretrained": pretrained.digest}
    assert pretrained.manifest["parents"] == {"dataset": world.dataset.digest}
    assert set(model.manifest["commitments"]) == {"init", "order", "dropout", "augment", "sample"}
    assert not set(model.manifest["commitments"].values()) & set(pretrained.manifest["commitments"].values())
    (run,) = world.workspace.runs.glob("tiny-model-*")
    assert json.loads((run / "run.json").read_text())["commitments"] == model.manifest["commitments"]
    assert (run / "seeds.json").stat().st_mode & 0o777 == 0o600
    begun, facts = json.loads((run / "run.json").read_text()), model.json("training.json")
    assert (begun["n_parameters"], begun["n_steps"]) == (facts["n_parameters"], facts["n_steps"])
    assert (model.path / "timing.jsonl").read_bytes() == (run / "timing.jsonl").read_bytes()
    assert not (run / "checkpoints").exists()
    facts = model.json("training.json")
    lines = [json.loads(line) for line in (model.path / "metrics.jsonl").read_text().splitlines()]
    best = max((line for line in lines if "valid" in line), key=lambda line: line["valid"]["score"])
    assert (facts["best_step"], facts["best_score"]) == (best["step"], best["valid"]["score"])
    assert facts["pretraining"] == pretrained.json("training.json")


def test_the_weights_are_the_best_ones_and_score_what_the_record_says(world):
    model = world.train(spec_of(world.folder, train={"epochs": 6, "learning_rate": 0.02}))
    prepared = classification.prepare(material_of(world.dataset, spec_of(world.folder)))
    prepared.module.load_state_dict(load_predictor(model).answerer.module.state_dict())
    assert prepared.evaluate(prepared.module)["score"] == model.json("training.json")["best_score"]


def test_pretraining_is_shared_by_trainings_that_differ_only_later(world):
    told = Listener()
    for learning_rate in (1e-3, 2e-3):
        spec = spec_of(world.folder, pretrain={"epochs": 1}, train={"learning_rate": learning_rate})
        world.train(spec, told)
    assert len(list(world.workspace.all("pretrained"))) == 1
    assert len(list(world.workspace.all("model"))) == 2
    world.train(spec, told)
    assert told.notes[-1].endswith("is there already")


def test_the_same_seed_gives_the_same_model_and_no_seed_another_each_time(world, tmp_path):
    model = world.train(spec_of(world.folder))
    (tmp_path / "again").mkdir()
    workspace, dataset = make_dataset(tmp_path / "again")
    again = train_model(workspace, "tiny", dataset, spec_of(world.folder), Sources(), SCORE, Silent())
    for name in ("model.safetensors", "metrics.jsonl", "tokenizer.json"):
        assert again.manifest["files"][name] == model.manifest["files"][name]
    assert again.manifest["commitments"] != model.manifest["commitments"]  # each run blinds them anew
    drawn = world.train(spec_of(world.folder, seed=None))
    assert drawn.manifest["files"]["model.safetensors"] != model.manifest["files"]["model.safetensors"]


def test_a_run_goes_on_with_the_threads_that_it_began_with(world):
    spec = spec_of(world.folder, train={"learning_rate": 1e6, "epochs": 8})
    before = torch.get_num_threads()
    told = Listener()
    try:
        with pytest.raises(DanluError):
            world.train(spec)
        torch.set_num_threads(before + 1)
        with pytest.raises(DanluError):
            world.train(spec, told)
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
    assert any("goes on with as many, to stay exact" in note for note in told.notes)


def test_pretraining_learns_and_asks_for_the_same_tokens_each_time(world):
    material = material_of(world.dataset, spec_of(world.folder, pretrain={"epochs": 1}))
    prepared = pretrain.prepare(material, held_out=world.dataset)
    prepared.module.eval()
    with torch.inference_mode():
        first, again = (prepared.evaluate(prepared.module) for _ in range(2))
    assert first == again
    assert first["score"] == -first["loss"]
    n_tokens = prepared.answerer.tokenizer.get_vocab_size()
    assert first["loss"] == pytest.approx(np.log(n_tokens), abs=1.0)
    one, two = (prepared.feed.batch(1) for _ in range(2))
    assert torch.equal(one.tokens_BT, two.tokens_BT)


def test_the_plan_counts_what_training_then_does(world):
    spec = spec_of(world.folder, pretrain={"epochs": 1})
    plan = plan_training(world.workspace, world.dataset, spec, Sources(), SCORE, Silent())
    facts = world.train(spec).json("training.json")
    phases = [facts, facts["pretraining"]]
    assert plan.n_parameters == facts["n_parameters"]
    assert plan.n_steps == sum(phase["n_steps"] for phase in phases)
    assert plan.n_tokens == sum(phase["n_tokens"] for phase in phases)
    n_positions = sum(phase["n_positions"] for phase in phases)
    assert plan.padding_share == pytest.approx(1 - plan.n_tokens / n_positions)
    # At least two operations, forward and twice that backward, for each weight of a matrix and each token.
    assert plan.flops > 6 * 16 * 16 * 4 * plan.n_tokens
    assert plan.memory_bytes > 50e6
    assert plan.seconds > 0
    assert not list(world.workspace.runs.glob("*plan*"))


TASKS = sorted(TRAINING)
ASK = {
    "text-classification": lambda predictor: predictor.predict_proba(["好棒赞", "差"]),
    "image-classification": lambda predictor: predictor.answerer.predict_proba(np.zeros((2, 1, 14, 14), np.uint8)),
    "language-modelling": lambda predictor: predictor.nats(["好棒赞", "差"]),
    "translation": lambda predictor: predictor.translate(["好棒赞", "差"]),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_makes_a_model_that_scores_what_the_record_says_and_answers(tmp_path, task):
    workspace, dataset = make_dataset(tmp_path, task=task)
    spec = spec_of(tmp_path, FAMILY[task], task=task, train={"epochs": 8})
    told = Listener()
    model = train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, told)
    facts, predictor = model.json("training.json"), load_predictor(model)
    assert model.manifest["parents"] == {"dataset": dataset.digest}
    assert (predictor.task, predictor.family) == (task, FAMILY[task])
    assert bool(predictor.classes) == task.endswith("classification")
    assert len(ASK[task](predictor)) == 2
    prepared = TRAINING[task].prepare(material_of(dataset, spec))
    with torch.inference_mode():
        before = prepared.evaluate(prepared.module.eval())
    prepared.module.load_state_dict(predictor.answerer.module.state_dict())
    with torch.inference_mode():
        after = prepared.evaluate(prepared.module.eval())
    assert after["score"] == facts["best_score"] > before["score"]
    assert facts["n_parameters"] == facts["n_trained"] == predictor.answerer.n_parameters
    # The same work is not done twice, and done elsewhere it gives the same bits.
    assert train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, told).digest == model.digest
    (tmp_path / "again").mkdir()
    workspace, dataset = make_dataset(tmp_path / "again", task=task)
    again = train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent())
    for name in ("model.safetensors", "metrics.jsonl"):
        assert again.manifest["files"][name] == model.manifest["files"][name]


@pytest.mark.parametrize("task", TASKS)
def test_the_plan_of_every_task_counts_what_its_training_then_does(tmp_path, task):
    workspace, dataset = make_dataset(tmp_path, task=task)
    spec = spec_of(tmp_path, FAMILY[task], task=task)
    plan = plan_training(workspace, dataset, spec, Sources(), SCORE, Silent())
    facts = train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent()).json("training.json")
    for key in ("n_parameters", "n_steps", "n_tokens"):
        assert getattr(plan, key) == facts[key], key
    assert plan.padding_share == pytest.approx(1 - plan.n_tokens / facts["n_positions"])


def test_every_task_that_can_be_trained_has_a_simple_model_to_beat(tmp_path):
    assert {simple.task for simple in BASELINES.values()} == set(TRAINING)
    for label, simple in BASELINES.items():
        folder = tmp_path / label
        folder.mkdir()
        workspace, dataset = make_dataset(folder, task=simple.task)
        told = Listener()
        model = train_baseline(workspace, "tiny", dataset, label, SCORE, told)
        predictor = load_predictor(model)
        assert (predictor.task, predictor.family) == (simple.task, label)
        assert len(ASK[simple.task](predictor)) == 2
        assert model.json("training.json")["n_parameters"] == predictor.answerer.n_parameters > 0
        assert train_baseline(workspace, "tiny", dataset, label, SCORE, told).digest == model.digest
        assert told.notes == [f"{model.path.name} is there already"]


def test_an_ensemble_is_at_least_as_likely_right_as_its_members(world):
    members = {family: world.train(spec_of(world.folder, family)) for family in ("bert", "gru")}
    model = train_ensemble(world.workspace, "tiny", world.dataset, members, SCORE, Silent())
    facts = model.json("training.json")
    assert set(facts["weights"]) == {"bert", "gru"}
    assert facts["seconds"] >= sum(member.json("training.json")["seconds"] for member in members.values())
    assert load_predictor(model).predict_proba(["好"]).shape == (1, 2)
    found = train_ensemble(world.workspace, "tiny", world.dataset, members, SCORE, Silent())
    assert found.digest == model.digest


def test_cooccurrence_counts_are_those_of_a_double_loop():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 12, n).tolist() for n in (1, 9, 0, 3, 20)]
    expected = np.zeros((12, 12))
    for text in texts:
        for i, left in enumerate(text):
            for j in range(max(0, i - 5), min(len(text), i + 6)):
                if i != j:
                    expected[left, text[j]] += 1 / abs(i - j)
    found = cooccurrence._cooccurrences(Tokens.of(texts), 12).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_tokens_in_like_company_get_like_vectors():
    rng = np.random.default_rng(0)
    texts = [[*rng.choice(range(10, 20), 4), *rng.choice([5, 6], 2)] for _ in range(200)]
    texts += [[*rng.choice(range(20, 30), 4), *rng.choice([7, 8], 2)] for _ in range(200)]
    tokens = Tokens.of([[int(token) for token in text] for text in texts])
    vectors = cooccurrence.cooccurrence_vectors(tokens, 40, 16, std=0.05, seed=1)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    assert unit[5] @ unit[6] > 0.7 > 0.2 > unit[5] @ unit[7]
    assert vectors.std() == pytest.approx(0.05, rel=1e-3)
    assert not vectors[35].any()
    np.testing.assert_array_equal(vectors, cooccurrence.cooccurrence_vectors(tokens, 40, 16, std=0.05, seed=1))


def test_token_vectors_are_the_same_however_many_threads_there_are():
    draw = np.random.default_rng(0)
    tokens = Tokens.of([(draw.zipf(1.3, 40) % 3000).tolist() for _ in range(3000)])  # of fewer, all come out alike
    found = []
    for n in (1, 2, 3):
        with threadpool_limits(n, user_api="blas"):
            found.append(cooccurrence.cooccurrence_vectors(tokens, 3000, 96, std=0.05, seed=1))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize("texts", [[[]], [[5], [6]], [[5, 5, 5]]])
def test_texts_without_company_give_no_nan(texts):
    assert not cooccurrence.cooccurrence_vectors(Tokens.of(texts), 10, 4, std=0.05, seed=1).any()


def test_disagreement_is_the_symmetric_divergence_by_hand():
    torch.manual_seed(0)
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    p, q = a.double().softmax(-1), b.double().softmax(-1)
    by_hand = ((p - q) * (p / q).log()).sum() / 2
    assert disagreement(a, b).item() == pytest.approx(by_hand.item(), abs=1e-6)
    assert disagreement(a, a).item() == pytest.approx(0, abs=1e-7)


def test_a_profiled_run_keeps_its_trace_and_its_table(tmp_path):
    workspace, dataset = make_dataset(tmp_path)
    spec = spec_of(tmp_path, train={"profile_steps": 2})
    model = train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent())
    assert {TRACE, TABLE} <= set(model.manifest["files"])
    with gzip.open(model.path / TRACE, "rt", encoding="utf-8") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "aten::addmm" in names
    table = model.json(TABLE)
    assert (table["steps"], table["device"]) == (2, "cpu")
    shares = [row["share"] for row in table["rows"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1 + 1e-9
    assert sum(row["seconds"] for row in table["rows"]) <= table["seconds"]
    plain = train_model(workspace, "tiny", dataset, spec_of(tmp_path, train={}), Sources(), SCORE, Silent())
    assert plain.digest == model.digest  # to watch a run does not change what it makes
