from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from danlu.choosing import ask
from danlu.core.errors import DataError, UsageError
from danlu.core.events import EventLog
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.stage import read_split
from danlu.labelling import write_out
from danlu.model.predictor import load_predictor
from made_feedback import asked, champion, fresh


def pictures(n):
    """Pictures that are bright on one side, some more clearly than others, as files in base64."""
    draw = np.random.default_rng(3)
    found = []
    for number in range(n):
        pixels = draw.integers(0, 100, (14, 14), dtype=np.uint8)
        pixels[:, :7] += np.uint8(number)
        pixels[:, 7:] += np.uint8(120 - number)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        found.append(base64.b64encode(file.getvalue()).decode())
    return found


def test_pictures_are_asked_about_where_the_model_is_torn(tmp_path):
    workspace, model = champion(tmp_path, "image-classification", simple="pixels-lr")
    asked(workspace, model.digest, [(each, {"label": "0"}) for each in pictures(120)])
    found = ask(workspace, "tiny", 10, "margin", Silent())
    numbers = [int(each["request"].split("-")[2]) for each in found.questions]
    assert found.n_candidates == 120
    assert all(40 <= number <= 80 for number in numbers)  # neither side is much brighter
    done = write_out(workspace, "tiny", tmp_path / "tasks.json", "label-studio")
    assert done.n == 10
    assert 'toName="image"' in str(done.interface)


def test_what_the_training_data_hold_is_not_asked_about(tmp_path):
    workspace, model = champion(tmp_path, simple="tfidf-lr")
    dataset = workspace.with_digest(model.manifest["parents"]["dataset"])
    known = [
        text for split in ("train", "test") for text in read_split(dataset, split, ["text"])["text"].to_pylist()[:5]
    ]
    new = [text for text, _ in fresh(30)]
    asked(workspace, model.digest, [(text, {"label": "good"}) for text in [*known, *new]])
    found = ask(workspace, "tiny", 8, "entropy", Silent())
    assert (found.n_candidates, found.n_left_out["in the data"]) == (30, 10)
    p_BN = load_predictor(model).predict_proba(new)
    torn = sorted(new, key=lambda text: float(np.abs(p_BN[new.index(text)] - 0.5).max()))[:8]
    assert {each["input"] for each in found.questions} == set(torn)
    with pytest.raises(UsageError, match="no vectors"):
        ask(workspace, "tiny", 8, "core-set", Silent())


def test_there_may_be_nothing_to_ask(tmp_path):
    workspace, model = champion(tmp_path, simple="tfidf-lr")
    with pytest.raises(DataError, match="no request was answered"):
        ask(workspace, "tiny", 8, "margin", Silent())
    log = EventLog(workspace.events, "serve")
    facts = {"name": "tiny", "route": "/predict", "seconds": 0.1, "digest": model.digest}
    log.write("request", id="r1", status=200, answers=[{"label": "good"}], inputs=None, **facts)
    log.write("request", id="r2", status=503, **facts)
    with pytest.raises(DataError, match="not kept 1"):
        ask(workspace, "tiny", 8, "margin", Silent())
    (tmp_path / "translation").mkdir()
    workspace, _ = champion(tmp_path / "translation", "translation", simple="translation-memory")
    with pytest.raises(UsageError, match="names classes"):
        ask(workspace, "tiny", 8, "margin", Silent())


def test_what_is_drawn_at_random_follows_from_the_seed_and_goes_on_where_it_ended(tmp_path):
    workspace, model = champion(tmp_path, simple="tfidf-lr")
    asked(workspace, model.digest, [(text, {"label": "good"}) for text, _ in fresh(60)])
    copies = [Workspace(shutil.copytree(workspace.root, tmp_path / f"copy-{n}")) for n in range(3)]

    def draw(where, n, seed):
        return [each["request"] for each in ask(where, "tiny", n, "random", Silent(), seed).questions]

    all_20 = draw(workspace, 20, 0)
    assert len(set(all_20)) == 20
    assert [*draw(copies[0], 8, 0), *draw(copies[0], 12, 0)] == all_20
    assert draw(copies[1], 20, 1) != all_20
    asked(copies[2], model.digest[::-1], [(text, {"label": "good"}) for text, _ in fresh(20, seed=8)])
    both = draw(copies[2], 20, 0)
    old = [each for each in both if each in all_20]
    assert old == all_20[: len(old)], "who came later is drawn among the others, and changes nothing about these"
    assert len(old) < 20
