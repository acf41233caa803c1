"""``danlu serve`` as a process: what callers get, what is refused, and how it ends."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from danlu.audit.endpoint import Endpoint
from danlu.core.workspace import Workspace
from danlu.model.decode import DecodeConfig
from danlu.model.predictor import load_predictor
from danlu.serve.keys import make_key
from made_serving import make_served
from served import Reply, Served, serving, until

pytestmark = pytest.mark.xdist_group("serve")

TASKS = {
    "reviews": "text-classification",
    "digits": "image-classification",
    "ui": "translation",
}
LONG = {"model": "poems@champion", "prompt": "好", "max_tokens": 2000, "temperature": 1.0, "seed": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a model for each task."""
    root = tmp_path_factory.mktemp("served")
    workspace = Workspace(root / "workspace")
    for name, task in TASKS.items():
        make_served(workspace, name, task)  # type: ignore[arg-type]
    make_served(workspace, "poems", "language-modelling", max_len=4000)
    return root


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Served]:
    """All models, no keys, small limits."""
    words = ["poems@champion", *TASKS, "limits.body_bytes=200000", "limits.queue=8", "limits.n=4", "streams=4"]
    with serving(home / "workspace", *words, folder=home / "block") as found:
        yield found


def predictor(home: Path, name: str) -> Any:
    return load_predictor(Workspace(home / "workspace").target(name, "model"))


def test_the_official_client_lists_chats_streams_and_is_told_what_is_wrong(home: Path, server: Served) -> None:
    model = predictor(home, "poems")
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        assert "poems@champion" in [each.id for each in client.models.list()]
        assert client.models.retrieve("poems@champion").owned_by == "danlu"
        asked: dict[str, Any] = {"model": "poems@champion", "temperature": 1, "seed": 7, "max_tokens": 12}
        (expected,) = model.write(["这个很好"], DecodeConfig(temperature=1.0, seed=7, max_new_tokens=12))
        whole = client.completions.create(prompt="这个很好", logprobs=2, **asked)
        assert whole.choices[0].text == expected
        assert whole.usage.completion_tokens <= 12
        assert whole.usage.prompt_tokens == 5
        assert len(whole.choices[0].logprobs.tokens) == len(whole.choices[0].logprobs.top_logprobs) > 0
        pieces = list(client.completions.create(prompt="这个很好", stream=True, **asked))
        assert "".join(piece.choices[0].text for piece in pieces) == expected
        messages = [{"role": "system", "content": "这个"}, {"role": "user", "content": "很好"}]
        chat = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=1, n=2, **asked)
        assert [choice.index for choice in chat.choices] == [0, 1]
        assert len({choice.message.content for choice in chat.choices}) == 2
        assert chat.choices[0].logprobs.content[0].logprob <= 0
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(messages=messages, stream=True, stream_options=options, **asked))
        said = "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
        assert said == chat.choices[0].message.content
        assert chunks[-1].usage.completion_tokens == chat.usage.completion_tokens // 2 or chat.usage is not None
        vectors = client.embeddings.create(model="reviews", input=["好", "差烂坏"])
        assert [len(each.embedding) for each in vectors.data] == [16, 16]
        assert np.linalg.norm(vectors.data[0].embedding) == pytest.approx(1, abs=1e-5)
        with pytest.raises(openai.NotFoundError) as unknown:
            client.completions.create(prompt="x", **{**asked, "model": "poem@champion"})
        assert unknown.value.code == "model_not_found"
        assert "did you mean 'poems@champion'?" in str(unknown.value)
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as long:
                client.completions.create(prompt="好" * 4000, stream=stream, **asked)
            assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")


def test_predictions_are_those_of_the_command_line(home: Path, server: Served) -> None:
    texts = ["好棒赞", "差烂坏", ""]
    found = server.ask("/predict", {"model": "reviews", "inputs": texts}).json
    reviews = predictor(home, "reviews")
    for each, row in zip(found["predictions"], reviews.predict_proba(texts), strict=True):
        assert each["label"] == reviews.classes[int(row.argmax())]
        assert list(each["probabilities"].values()) == pytest.approx(row.tolist(), abs=2e-6)
    found = server.ask("/predict", {"model": "ui", "inputs": texts}).json
    assert [each["translation"] for each in found["predictions"]] == predictor(home, "ui").translate(texts)
    draw = np.random.default_rng(1)
    pictures = []
    for _ in range(3):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (14, 14), np.uint8)).save(file, "PNG")
        pictures.append(file.getvalue())
    encoded = [base64.b64encode(picture).decode() for picture in pictures]
    found = server.ask("/predict", {"model": "digits", "inputs": encoded}).json
    for picture, each in zip(pictures, found["predictions"], strict=True):
        (home / "picture.png").write_bytes(picture)
        digits = predictor(home, "digits")
        row = digits.image_proba(digits.open_images([home / "picture.png"]))[0]
        assert each["probability"] == pytest.approx(float(row.max()), abs=2e-6)
    wrong = server.ask(
        "/predict", {"model": "digits", "inputs": [encoded[0], base64.b64encode(b"no picture").decode()]}
    )
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "inputs[1]")
    assert "/tmp" not in wrong.body.decode()


def test_the_audit_can_ask_it_for_the_probabilities_of_a_prompt(home: Path, server: Served) -> None:
    endpoint = Endpoint(f"{server.address}/v1", "poems@champion")
    texts = ["这个很好", "我买了这个", "好"]
    losses = endpoint.losses(texts)
    assert not isinstance(losses, str)
    whole = predictor(home, "poems").nats(texts)
    assert losses[2] == 0
    assert (losses[:2] > 0).all()
    assert (losses < whole).all(), "the first token and the end are left out"
    answers = endpoint.answers(["这个很好"])
    assert answers == predictor(home, "poems").write(["这个很好"], DecodeConfig(max_new_tokens=1))


def text(**changes: Any) -> dict[str, Any]:
    return {"model": "poems@champion", "prompt": "好", "max_tokens": 2} | changes


REFUSED: list[tuple[str, Any, int, str]] = [
    ("/v1/completions", text(n=10**6), 400, "limit_exceeded"),
    ("/v1/completions", text(n=2, prompt=["好"] * 3), 400, "limit_exceeded"),
    ("/v1/completions", text(n=0), 400, "invalid_value"),
    ("/v1/completions", text(n=True), 400, "invalid_value"),
    ("/v1/completions", text(n="1"), 400, "invalid_value"),
    ("/v1/completions", text(max_tokens=10**9), 400, "limit_exceeded"),
    ("/v1/completions", text(temperature=-1), 400, "invalid_value"),
    ("/v1/completions", text(temperature=0, top_p=0.5), 400, "invalid_value"),
    ("/v1/completions", text(best_of=3), 400, "invalid_value"),
    ("/v1/completions", text(frequency_penalty=0.5), 400, "invalid_value"),
    ("/v1/completions", text(tempreature=1), 400, "invalid_value"),
    ("/v1/completions", text(prompt=[]), 400, "invalid_value"),
    ("/v1/completions", text(prompt=[1, 10**7]), 400, "invalid_value"),
    ("/v1/completions", text(prompt=None), 400, "invalid_value"),
    ("/v1/completions", text(stop=["a"] * 9), 400, "limit_exceeded"),
    ("/v1/completions", text(stop=""), 400, "invalid_value"),
    ("/v1/completions", text(logprobs=1000), 400, "limit_exceeded"),
    ("/v1/completions", text(model="reviews"), 400, "wrong_task"),
    ("/v1/completions", text(model="../../etc/passwd"), 404, "model_not_found"),
    ("/v1/completions", b'{"model": "poems@champion", "prompt": "\\ud800"}', 400, "invalid_value"),
    ("/v1/completions", b'{"model": "poems@champion", "prompt": "x", "temperature": NaN}', 400, "invalid_value"),
    ("/v1/completions", b'{"model": "poems@champion", "prompt": "x", "temperature": 1e999}', 400, "invalid_value"),
    ("/v1/completions", b'{"model": "poems", "prompt": "x", "seed": ' + b"9" * 6000 + b"}", 400, "invalid_value"),
    ("/v1/completions", b"[" * 10_000, 400, "invalid_value"),
    ("/v1/completions", b"[" * 10_000 + b"]" * 10_000, 400, "invalid_value"),
    ("/v1/completions", b'"' + b'\\"' * 90_000, 400, "invalid_value"),
    ("/v1/completions", b"\xff\xfe", 400, "invalid_value"),
    ("/v1/completions", b"", 400, "invalid_value"),
    ("/v1/completions", b"x" * 200_001, 413, "body_too_large"),
    ("/v1/chat/completions", {"model": "poems@champion", "messages": []}, 400, "invalid_value"),
    ("/predict", {"inputs": ["x"]}, 400, "model_missing"),
    ("/predict", {"model": "poems@champion", "inputs": ["x"]}, 400, "wrong_task"),
    ("/predict", {"model": "reviews", "inputs": ["x"] * 300}, 400, "limit_exceeded"),
    ("/predict", {"model": "reviews", "inputs": ["x" * 150_000]}, 400, "limit_exceeded"),
    ("/predict", {"model": "digits", "inputs": ["%%"]}, 400, "invalid_value"),
    ("/v1/embeddings", {"model": "ui", "input": "x"}, 400, "wrong_task"),
    ("/v1/embeddings", {"model": "reviews", "input": "好" * 100}, 400, "context_length_exceeded"),
    ("/v1/nothing", {}, 404, "not_found"),
    ("/metrics", {}, 405, "method_not_allowed"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_asked_wrongly_is_refused_with_a_reason(server: Served, number: int) -> None:
    path, body, status, code = REFUSED[number]
    found = server.ask(path, body)
    assert (found.status, found.code) == (status, code)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"host": "evil.example"}, 403, "host_not_allowed"),
        ({"host": "127.0.0.1.evil.example"}, 403, "host_not_allowed"),
        ({"host": ""}, 403, "host_not_allowed"),
        ({"origin": "http://evil.example"}, 403, "origin_not_allowed"),
        ({"origin": "null"}, 403, "origin_not_allowed"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
    ],
)
def test_a_page_of_another_site_cannot_ask(server: Served, headers: dict[str, str], status: int, code: str) -> None:
    found = server.ask("/predict", {"model": "reviews", "inputs": ["好"]}, **headers)
    assert (found.status, found.code) == (status, code)
    assert not [name for name in found.headers if name.lower().startswith("access-control")]


def test_its_own_pages_may_ask(server: Served) -> None:
    found = server.ask("/predict", {"model": "reviews", "inputs": ["好"]}, origin=server.address)
    assert found.status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_is_no_longer_written_for(server: Served, stream: bool) -> None:
    with server.raw("/v1/completions", LONG | {"stream": stream, "n": 4}) as opened:
        until(lambda: server.under_way("poems@champion") == 1)
        if stream:
            assert opened.recv(100).startswith(b"HTTP/1.1 200")
    until(lambda: server.under_way("poems@champion") == 0, seconds=10)
    until(lambda: any(event["status"] == 499 for event in server.events()[-3:]))


def test_a_full_queue_sends_away_with_the_time_to_come_back(server: Served) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(8):
            opened.enter_context(server.raw("/v1/completions", LONG | {"stream": True}))
        until(lambda: server.under_way("poems@champion") == 8)
        found = server.ask("/v1/completions", text())
        assert (found.status, found.code) == (503, "overloaded")
        assert int(found.headers["retry-after"]) >= 1
        assert server.ask("/predict", {"model": "reviews", "inputs": ["好"]}).status == 200, "another has its own queue"
    until(lambda: server.under_way("poems@champion") == 0, seconds=10)


def test_every_request_is_written_down(server: Served) -> None:
    n_before = len(server.events())
    first = server.ask("/predict", {"model": "reviews", "inputs": ["好", "差差"]}).json
    second = server.ask("/v1/completions", text(seed=3)).json
    server.ask("/v1/completions", text(n=0))
    server.ask("/health/live")
    predicted, wrote, refused = server.events()[n_before:]
    assert predicted["id"] == first["id"]
    assert predicted["digest"] == first["digest"]
    assert [each["n_chars"] for each in predicted["answers"]] == [1, 2]
    assert predicted["answers"][0]["label"] == first["predictions"][0]["label"]
    assert (wrote["id"], wrote["seed"], wrote["prompt_tokens"]) == (second["id"], 3, 2)
    assert (refused["status"], refused["code"], refused["route"]) == (400, "invalid_value", "/v1/completions")
    assert all(event["seconds"] > 0 for event in (predicted, wrote, refused))


def reached(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_keys_a_killed_process_and_the_end(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    make_served(workspace, "poems", "language-modelling", max_len=4000)
    key, _ = make_key(workspace.root / "keys.json", "everything", ["ask", "metrics", "label"])
    asks, made = make_key(workspace.root / "keys.json", "asks", ["ask"], per_minute=2)
    with serving(workspace.root, "poems@champion", folder=tmp_path / "block") as server:
        keys_are_needed(server, key, asks)
        server.headers["authorization"] = f"Bearer {key}"
        a_killed_process_is_replaced(server)
        the_end_waits_for_streams(server)
    written = "".join(path.read_text() for path in (workspace.root / "events").iterdir())
    written += (tmp_path / "block" / "stderr.txt").read_text()
    assert made.id in written
    assert key not in written
    assert key.split("-", 2)[2] not in written


def keys_are_needed(server: Served, key: str, asks: str) -> None:
    document = server.ask("/openapi.json", authorization=f"Bearer {key}").json
    routes = [(path, method) for path, item in document["paths"].items() for method in item]
    assert len(routes) >= 8
    for path, _ in [*routes, ("/openapi.json", ""), ("/nothing", "")]:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
            found = server.ask(path.replace("{name}", "poems@champion"), {} if method == "POST" else None, method)
            if "/health/" in path:
                assert found.status in (200, 405, 415)
            else:
                assert found.status == 401, (path, method)
                assert found.headers["www-authenticate"] == "Bearer"
    for wrong in (f"Bearer {key}x", f"Basic {key}", key, "Bearer"):
        assert server.ask("/v1/models", authorization=wrong).code == "invalid_api_key"
    answers: list[Reply] = [server.ask("/v1/models", authorization=f"Bearer {asks}") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) <= 31
    assert server.ask("/metrics", authorization=f"Bearer {asks}").code == "scope_missing"
    assert server.ask("/metrics", authorization=f"bearer {key}").status == 200


def a_killed_process_is_replaced(server: Served) -> None:
    streamed = LONG | {"stream": True}
    with server.raw("/v1/completions", streamed) as opened, server.raw("/v1/completions", LONG) as waiting:
        assert opened.recv(1)
        until(lambda: server.under_way("poems@champion") == 2)
        (child,) = server.children()
        os.kill(child, signal.SIGKILL)
        answer = http.client.HTTPResponse(waiting)
        answer.begin()
        assert answer.status == 503
        assert json.loads(answer.read())["error"]["code"] == "worker_lost"
        assert b"[DONE]" not in received(opened, b'"worker_lost"')
    assert server.ask("/health/live").status == 200
    until(lambda: server.ask("/health/ready").status == 200)
    assert server.children() != [child]
    assert server.ask("/v1/completions", text()).status == 200


def received(opened: socket.socket, what: bytes) -> bytes:
    found = b""
    while what not in found:
        piece = opened.recv(65536)
        assert piece, found[-300:]
        found += piece
    return found


def the_end_waits_for_streams(server: Served) -> None:
    with server.raw("/v1/completions", LONG | {"stream": True, "max_tokens": 1000}) as opened:
        received(opened, b"data: ")
        children = server.children()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not reached(server.port))
        assert server.process.poll() is None
        received(opened, b"data: [DONE]")
    assert server.process.wait(60) == 0
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "nothing"], "nothing is named yet|no model is named"),
        (["serve"], "which model"),
        (["serve", "reviews", "host=0.0.0.0"], "nobody would need a key"),
        (["serve", "reviews", "reviews"], "two models would be called"),
        (["serve", "reviews", "prot=1"], "unknown key"),
        (["serve", "reviews", "host=192.0.2.1", "keys=KEYS"], "cannot listen"),
    ],
)
def test_what_cannot_be_served_is_refused(home: Path, danlu: Any, words: list[str], message: str) -> None:
    danlu.workspace = home / "workspace"
    keys = danlu.workspace.parent / "some-keys.json"
    if not keys.exists():
        make_key(keys, "one")
    said = danlu(*[word.replace("KEYS", str(keys)) for word in words])
    assert said.code == 2
    assert any(part in said.err for part in message.split("|"))


def test_a_key_is_made_and_shown_once(danlu: Any) -> None:
    said = danlu("serve", "--new-key", "the web site", "--json")
    assert said.code == 0
    assert said.json["key"].startswith("danlu-")
    assert said.json["key"] not in (danlu.workspace / "keys.json").read_text()
    assert said.json["scopes"] == ["ask"]
    assert danlu("serve", "--new-key", "the web site").code == 2
    less = danlu("serve", "--new-key", "an app", "scopes=[ask]", "per_minute=60", "--json")
    assert (less.json["scopes"], less.json["per_minute"]) == (["ask"], 60)
    more = danlu("serve", "--new-key", "the board", "scopes=[ask,metrics,label]", "--json")
    assert more.json["scopes"] == ["ask", "metrics", "label"]
    assert "scopes=[ask,metrics,label]" in danlu("serve", "--new-key", "a person").out
    for wrong in ("scopes=[]", "scopes=[asks]", "per_minute=0", "port=8000"):
        assert danlu("serve", "--new-key", "another", wrong).code == 2
