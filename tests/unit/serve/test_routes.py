"""What the routes ask of models, answer, and write down; with models that answer from a table."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from danlu.core.errors import CorruptError
from danlu.core.events import EventLog
from danlu.serve.worker import AskError
from made_app import MadeApp

MODELS = {
    "reviews": "text-classification",
    "digits": "image-classification",
    "ui": "translation",
    "poems": "language-modelling",
}
REVIEWS, DIGITS, UI = (f"/v2/models/{name}@champion" for name in ("reviews", "digits", "ui"))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[MadeApp]:
    with MadeApp(tmp_path / "workspace", MODELS) as made:
        yield made


def tensor(data: list[Any], shape: list[int] | None = None, **changes: Any) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": shape or [len(data)], "data": data} | changes


def pictures(data: list[Any], shape: list[int], **changes: Any) -> dict[str, Any]:
    return tensor(data, shape, name="image", datatype="UINT8") | changes


def test_the_open_inference_protocol_answers_tensors(app: MadeApp) -> None:
    found = app.ask(f"{REVIEWS}/infer", {"id": "42", "inputs": [tensor(["good", "poor"])]})
    request = found.headers["x-request-id"]
    assert found.json == {
        "model_name": "reviews@champion",
        "model_version": f"{1:064x}",
        "id": "42",
        "parameters": {"request": request},
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["good", "bad"]},
            {"name": "probability", "datatype": "FP32", "shape": [2], "data": [0.9, 0.8]},
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.8, 0.2]},
        ],
    }
    (event,) = app.events("request")
    assert (event["id"], event["name"], event["inputs"]) == (request, "reviews", ["good", "poor"])
    assert [each["label"] for each in event["answers"]] == ["good", "bad"]
    assert app.ask("/feedback", {"request": request, "index": 1, "correct": True}).status == 200
    one = {"inputs": [tensor(["abc"])], "outputs": [{"name": "translation"}]}
    (output,) = app.ask(f"{UI}/versions/{3:064x}/infer", one).json["outputs"]
    assert output == {"name": "translation", "datatype": "BYTES", "shape": [1], "data": ["cba"]}


def test_pictures_reach_the_model_as_they_were_sent(app: MadeApp) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 1, 2, 3))
    for data in (pixels.tolist(), pixels.ravel().tolist()):
        assert app.ask(f"{DIGITS}/infer", {"inputs": [pictures(data, [3, 1, 2, 3])]}).status == 200
        asked = app.workers["digits"].asked[-1]
        for sent, expected in zip(asked["inputs"], pixels, strict=True):
            opened = Image.open(io.BytesIO(base64.b64decode(sent)))
            assert np.array_equal(np.asarray(opened)[None], expected)
    assert app.events("request")[0]["inputs"] == asked["inputs"]
    app.workers["digits"].facts["image_size"] = [3, 1, 2]
    coloured = np.arange(6).reshape(1, 3, 1, 2)
    app.ask(f"{DIGITS}/infer", {"inputs": [pictures(coloured.tolist(), [1, 3, 1, 2])]})
    (sent,) = app.workers["digits"].asked[-1]["inputs"]
    opened = np.asarray(Image.open(io.BytesIO(base64.b64decode(sent))))
    assert np.array_equal(opened.transpose(2, 0, 1), coloured[0])


INFER_REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (REVIEWS, {"inputs": []}, "at least 1"),
    (REVIEWS, {"inputs": [tensor(["a"]), tensor(["b"])]}, "at most 1"),
    (REVIEWS, {"inputs": [tensor(["a"], name="input")]}, "one input, called text"),
    (REVIEWS, {"inputs": [tensor(["a"], datatype="FP32")]}, "text is BYTES"),
    (REVIEWS, {"inputs": [tensor(["a"], shape=[2])]}, "the shape says 2 values, there are 1"),
    (REVIEWS, {"inputs": [tensor(["a"], shape=[1, 1])]}, r"the shape \[n\]"),
    (REVIEWS, {"inputs": [tensor([], shape=[0])]}, r"the shape \[n\]"),
    (REVIEWS, {"inputs": [tensor(["a"], shape=[10**30])]}, "values, there are 1"),
    (REVIEWS, {"inputs": [tensor(["a"], shape=[True])]}, r"shape\.0"),
    (REVIEWS, {"inputs": [tensor([1])]}, "BYTES are texts"),
    (REVIEWS, {"inputs": [tensor([["a"]])]}, "BYTES are texts"),
    (REVIEWS, {"inputs": [tensor(["a"], parameters={"binary_data": True})]}, "not known here"),
    (REVIEWS, {"inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]}, "no output is called 'logits'"),
    (REVIEWS, {"inputs": [tensor(["a"])], "parameters": {"x": 1}}, "not known here"),
    (REVIEWS, {"inputs": [tensor(["a"] * 300)]}, "1 to 256 inputs"),
    (DIGITS, {"inputs": [tensor(["a"])]}, "one input, called image"),
    (DIGITS, {"inputs": [pictures([0] * 6, [1, 2, 3, 1])]}, r"the shape \[n, 1, 2, 3\]"),
    (DIGITS, {"inputs": [pictures([256] * 6, [1, 1, 2, 3])]}, "0 to 255"),
    (DIGITS, {"inputs": [pictures([-1] * 6, [1, 1, 2, 3])]}, "0 to 255"),
    (DIGITS, {"inputs": [pictures([0.5] * 6, [1, 1, 2, 3])]}, "whole numbers"),
    (DIGITS, {"inputs": [pictures([True] * 6, [1, 1, 2, 3])]}, "whole numbers"),
    (DIGITS, {"inputs": [pictures([[[[0, 0, 0, 0], [0, 0]]]], [1, 1, 2, 3])]}, "nested otherwise"),
    (DIGITS, {"inputs": [pictures([[0, 0, 0], 0, 0, 0], [1, 1, 2, 3])]}, "nested otherwise"),
]


@pytest.mark.parametrize("number", range(len(INFER_REFUSED)))
def test_a_tensor_that_is_not_what_the_model_takes_is_refused(app: MadeApp, number: int) -> None:
    path, body, message = INFER_REFUSED[number]
    found = app.ask(f"{path}/infer", body)
    assert (found.status, list(found.json)) == (400, ["error"])
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found.json["error"])


def test_the_protocol_describes_server_and_models(app: MadeApp) -> None:
    assert app.ask("/v2").json["name"] == "danlu"
    assert app.ask("/v2/health/live").json["live"] is True
    assert app.ask("/v2/health/ready").status == 200
    digits = app.ask(DIGITS).json
    assert (digits["name"], digits["versions"]) == ("digits@champion", [f"{2:064x}"])
    assert digits["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 2, 3]}]
    assert digits["outputs"][2]["parameters"] == {"classes": ["bad", "good"]}
    assert app.ask(f"{DIGITS}/versions/{2:064x}").json == digits
    assert app.ask(f"{DIGITS}/ready").json == {"name": "digits@champion", "ready": True}
    for wrong, status in (
        (f"{DIGITS}/versions/1", 404),
        (f"{DIGITS}/versions/1/ready", 404),
        ("/v2/models/digit", 404),
        ("/v2/models/poems@champion", 400),
        ("/v2/nothing", 404),
    ):
        found = app.ask(wrong)
        assert (found.status, list(found.json)) == (status, ["error"])
    assert app.ask("/v2/models/poems@champion/ready").status == 200
    app.workers["digits"].ready = False
    assert app.ask(f"{DIGITS}/ready").status == 503
    assert app.ask("/v2/health/ready").status == 503
    assert app.ask(f"{DIGITS}/versions/1/infer", {"inputs": [pictures([0] * 6, [1, 1, 2, 3])]}).status == 404


def test_inputs_are_kept_as_far_as_they_are_wanted(tmp_path: Path) -> None:
    large, small = "A" * (64 * 2**10 + 4), "QUJD"
    for keeps in (True, False):
        with MadeApp(tmp_path / str(keeps), MODELS, keep_inputs=keeps) as app:
            app.ask("/predict", {"model": "digits@champion", "inputs": [large, small], "user": "li"})
            app.ask("/predict", {"model": "ui@champion", "inputs": ["A" * 70_000]}, x_danlu_user="wang")
            app.ask("/v1/completions", {"model": "poems@champion", "prompt": ["a", "b"]})
            app.ask("/v1/completions", {"model": "poems@champion", "prompt": [[1], [2]], "stream": True})
            messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
            app.ask("/v1/chat/completions", {"model": "poems@champion", "messages": messages})
            events = app.events("request")
            assert [event["status"] for event in events] == [200] * 5
            assert [event.get("inputs") for event in events] == (
                [[None, small], ["A" * 70_000], ["a", "b"], [None, None], ["x\ny"]] if keeps else [None] * 5
            )
            assert [event["n_inputs"] for event in events] == [2, 1, 2, 2, 1]
            assert [event.get("user") for event in events] == ["li", "wang", None, None, None]
            assert [event["name"] for event in events] == ["digits", "ui", "poems", "poems", "poems"]
            assert ("translation" in events[1]["answers"][0]) is keeps


@pytest.mark.parametrize(("most", "usual"), [(8, 8), (16, 16), (2048, 16)])
def test_a_completion_that_names_no_length_gets_the_usual_one_or_what_is_allowed(
    tmp_path: Path, most: int, usual: int
) -> None:
    with MadeApp(tmp_path / "workspace", MODELS, limits={"new_tokens": most}) as app:
        asked = {"model": "poems@champion", "prompt": "a"}
        for body, wanted in ((asked, usual), (asked | {"max_tokens": 3}, 3), (asked | {"max_tokens": None}, None)):
            assert app.ask("/v1/completions", body).status == 200
            assert app.workers["poems"].asked[-1]["max_tokens"] == wanted
        found = app.ask("/v1/completions", asked | {"max_tokens": most + 1})
        assert (found.status, found.code) == (400, "limit_exceeded")


def test_explanations_are_the_models_and_count_as_no_answer(app: MadeApp) -> None:
    found = app.ask("/explain", {"model": "reviews@champion", "input": "x"}).json
    assert found["spans"] == [{"text": "x", "start": 0, "end": 1, "weight": 0.5}]
    assert (found["model"], found["method"]) == ("reviews@champion", "made")
    (event,) = app.events("request")
    assert (event["id"], event["digest"]) == (found["id"], f"{1:064x}")
    assert not {"name", "answers", "inputs"} & set(event)
    assert app.ask("/explain", {"model": "ui@champion", "input": "x"}).code == "wrong_task"
    assert app.ask("/explain", {"model": "reviews@champion", "input": "x" * 100_001}).code == "limit_exceeded"


def test_open_questions_are_told_until_somebody_answers(app: MadeApp) -> None:
    nothing = app.ask("/label?model=reviews@champion").json
    assert (nothing["questions"], nothing["n_open"]) == ([], 0)
    request = app.ask("/predict", {"model": "reviews@champion", "inputs": ["good", "poor"]}).json["id"]
    asking = EventLog(app.workspace.events, "feedback")
    for index, text in enumerate(("good", "poor")):
        facts = {"request": request, "index": index, "input": text, "answer": {"label": "bad", "probability": 0.6}}
        asking.write("question", id=f"q{index}", name="reviews", why={"margin": 0.2}, **facts)
    found = app.ask("/label?model=reviews@champion&n=5").json
    assert (found["name"], found["classes"]) == ("reviews", ["bad", "good"])
    assert [(each["index"], each["input"]) for each in found["questions"]] == [(0, "good"), (1, "poor")]
    one = app.ask("/label?model=reviews@champion&n=1").json
    assert (len(one["questions"]), one["n_open"]) == (1, 2)
    labelled = {"request": request, "index": 0, "label": "good", "source": {"kind": "labeller", "id": "wang"}}
    assert app.ask("/feedback", labelled).status == 200
    assert [each["index"] for each in app.ask("/label?model=reviews@champion").json["questions"]] == [1]
    for wrong in ("n=0", "n=101", "n=x"):
        assert app.ask(f"/label?model=reviews@champion&{wrong}").code == "invalid_value"
    assert app.ask("/label").code == "model_missing"


def test_the_board_is_that_of_the_model_or_there_is_none(tmp_path: Path) -> None:
    def board(name: str, digest: str) -> dict[str, Any]:
        if name == "ui":
            raise CorruptError("not an event", where="/somewhere/file.jsonl")
        return {"name": name, "digest": digest}

    with MadeApp(tmp_path / "one", MODELS, board) as app:
        assert app.ask("/board?model=poems@champion").json == {"name": "poems", "digest": f"{4:064x}"}
        found = app.ask("/board?model=ui@champion")
        assert (found.status, found.code) == (503, "workspace_unusable")
        assert b"somewhere" not in found.body
        assert app.ask("/board").code == "model_missing"
        assert app.events("request") == [], "who looks at the board asks no model"
    with MadeApp(tmp_path / "two") as app:
        assert (app.ask("/board").status, app.ask("/board").code) == (404, "not_found")


def test_models_are_described_with_the_size_of_their_pictures(app: MadeApp) -> None:
    sizes = {each["id"]: each["image_size"] for each in app.ask("/v1/models").json["data"]}
    assert sizes == {f"{name}@champion": [1, 2, 3] if name == "digits" else None for name in MODELS}


def test_half_a_surrogate_pair_is_refused_wherever_it_stands(app: MadeApp) -> None:
    for path, body in (
        ("/predict", b'{"model": "reviews@champion", "inputs": ["\\ud800"]}'),
        ("/feedback", b'{"id": "\\uDFFF", "request": "x", "correct": true}'),
        (f"{REVIEWS}/infer", b'{"id": "\\ud83d", "inputs": []}'),
    ):
        assert app.ask(path, body).status == 400
    whole = app.ask("/predict", b'{"model": "ui@champion", "inputs": ["\\ud83d\\ude00"]}')
    assert whole.json["predictions"] == [{"translation": "😀"}]


def test_who_asks_is_named_in_a_line(app: MadeApp) -> None:
    for wrong in ("x" * 101, "\x07"):
        found = app.ask("/predict", {"model": "ui@champion", "inputs": ["a"]}, x_danlu_user=wrong)
        assert (found.status, found.json["error"]["param"]) == (400, "x-danlu-user")


def test_a_method_that_a_route_does_not_have_is_told_which_it_has(app: MadeApp) -> None:
    found = app.ask("/predict", method="GET")
    assert (found.status, found.code, found.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_what_a_model_cannot_do_now_is_told_with_its_status(app: MadeApp) -> None:
    app.workers["reviews"].error = AskError(503, "worker_lost", "ask again", retry_after=1.0)
    found = app.ask(f"{REVIEWS}/infer", {"inputs": [tensor(["a"])]})
    assert (found.status, found.json, found.headers["retry-after"]) == (503, {"error": "ask again"}, "1")
    assert app.events("request")[0]["code"] == "worker_lost"
