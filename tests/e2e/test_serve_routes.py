"""What ``danlu serve`` answers beside OpenAI's routes, with real models: the protocol, reasons, feedback, the page."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from danlu.core.events import read_events
from danlu.core.workspace import Workspace
from danlu.explain.attribution import explain
from danlu.model.predictor import load_predictor
from made_serving import make_served
from served import Served, serving

pytestmark = pytest.mark.xdist_group("serve")

TEXTS = ["这个很好，我很喜欢", "差烂坏"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two classifiers."""
    root = tmp_path_factory.mktemp("routes")
    make_served(Workspace(root / "workspace"), "reviews", "text-classification")
    make_served(Workspace(root / "workspace"), "digits", "image-classification")
    return root


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Served]:
    """Both of them."""
    with serving(home / "workspace", "reviews@champion", "digits@champion", folder=home) as found:
        yield found


def predictor(home: Path, name: str) -> Any:
    return load_predictor(Workspace(home / "workspace").target(name, "model"))


def output(answer: Any, name: str) -> Any:
    return next(each for each in answer["outputs"] if each["name"] == name)


def test_the_protocol_gives_the_models_own_probabilities(home: Path, server: Served) -> None:
    reviews, digits = predictor(home, "reviews"), predictor(home, "digits")
    text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": TEXTS}
    found = server.ask("/v2/models/reviews@champion/infer", {"inputs": [text]}).json
    expected = reviews.predict_proba(TEXTS)
    assert output(found, "probabilities")["data"] == pytest.approx(expected.ravel().tolist(), abs=2e-6)
    assert output(found, "label")["data"] == [reviews.classes[int(row.argmax())] for row in expected]
    described = server.ask("/v2/models/digits@champion").json
    assert described["inputs"][0]["shape"] == [-1, 1, 14, 14]
    pixels = np.random.default_rng(1).integers(0, 256, (3, 1, 14, 14), np.uint8)
    image = {"name": "image", "datatype": "UINT8", "shape": [3, 1, 14, 14], "data": pixels.tolist()}
    found = server.ask("/v2/models/digits@champion/infer", {"inputs": [image]}).json
    expected = digits.image_proba(pixels)
    assert output(found, "probabilities")["data"] == pytest.approx(expected.ravel().tolist(), abs=2e-6)
    assert output(found, "probabilities")["shape"] == [3, 2]


def test_reasons_are_those_of_the_model_that_answered(home: Path, server: Served) -> None:
    found = server.ask("/explain", {"model": "reviews@champion", "input": TEXTS[0]}).json
    expected = explain(predictor(home, "reviews"), TEXTS[0]).plain()
    assert (found["label"], found["method"]) == (expected["label"], expected["method"])
    assert [each["text"] for each in found["spans"]] == [each["text"] for each in expected["spans"]]
    weights = [each["weight"] for each in found["spans"]]
    assert weights == pytest.approx([each["weight"] for each in expected["spans"]], abs=1e-4)
    assert any(weights)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (14, 14), np.uint8)).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    found = server.ask("/explain", {"model": "digits@champion", "input": picture}).json
    assert (found["height"], found["width"]) == (14, 14)
    assert np.any(np.array(found["weights"]).reshape(14, 14))
    assert server.ask("/explain", {"model": "digits@champion", "input": "%"}).code == "invalid_value"


def test_the_page_comes_with_all_that_it_names(server: Served) -> None:
    page = server.ask("/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    seen, waiting = set(), set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.body.decode()))
    assert waiting
    while waiting:
        path = waiting.pop()
        seen.add(path)
        found = server.ask(path)
        assert found.status == 200, path
        assert found.headers["content-security-policy"] == page.headers["content-security-policy"]
        waiting |= set(re.findall(r'from "(/assets/[^"]+)"', found.body.decode())) - seen
    assert not re.search(rb"https?://", page.body)


def test_acknowledged_feedback_outlives_the_server_and_counts_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    make_served(workspace, "reviews", "text-classification")
    with serving(workspace.root, "reviews", folder=tmp_path) as server:
        request = server.ask("/predict", {"inputs": TEXTS}).json["id"]
        given = {"id": "one", "request": request, "index": 1, "label": "good"}
        assert server.ask("/feedback", given).json["status"] == "recorded"
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.process.returncode = 0  # this end was meant
    with serving(workspace.root, "reviews", folder=tmp_path) as server:
        assert server.ask("/feedback", given).json["status"] == "known"
        assert server.ask("/feedback", {**given, "label": "bad"}).status == 409
        assert server.ask("/feedback", {**given, "id": "two", "label": "bad"}).json["status"] == "recorded"
    events = [event for event in read_events(workspace.events) if event["event"] == "feedback"]
    assert [(event["id"], event["label"], event["input"]) for event in events] == [
        ("one", "good", TEXTS[1]),
        ("two", "bad", TEXTS[1]),
    ]
