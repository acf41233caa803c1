"""Every route of a real server, asked what its own description allows and what it forbids."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NonInteractiveExampleWarning

from danlu.core.workspace import Workspace
from made_serving import make_served
from served import Served, serving, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.specs.openapi import checks

pytestmark = pytest.mark.xdist_group("serve")

MODELS = {"reviews": "text-classification", "digits": "image-classification", "poems": "language-modelling"}
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
N_EXAMPLES = {schemathesis.GenerationMode.POSITIVE: 12, schemathesis.GenerationMode.NEGATIVE: 8}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Three models, small limits."""
    root = tmp_path_factory.mktemp("fuzzed")
    workspace = Workspace(root / "workspace")
    for name, task in MODELS.items():
        make_served(workspace, name, task)  # type: ignore[arg-type]
    with serving(
        workspace.root, *MODELS, "limits.new_tokens=16", "limits.n=4", "limits.body_seconds=5", folder=root
    ) as found:
        yield found


def described(document: dict[str, Any]) -> list[Any]:
    """Every operation of a description."""
    return [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]


def tamed(case: Any, data: st.DataObject, request: str) -> None:
    """Half of the questions put to a model that may be asked them, within the limits: the others end before it."""
    writes = "completions" in case.path
    model = data.draw(st.sampled_from(["poems"] if writes else list(MODELS) if case.method == "GET" else ["reviews"]))
    for values in (case.path_parameters or {}, case.query or {}, case.body if isinstance(case.body, dict) else {}):
        for key in {"name", "model"} & values.keys():
            values[key] = model
    if not isinstance(body := case.body, dict) or not data.draw(st.booleans()):
        return
    for key in {"n", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"} & body.keys():
        if type(body[key]) is int:
            body[key] = min(body[key], 2)
    if writes:
        body |= {"temperature": 1, "stop": None}
        for key in {"stream_options", "top_logprobs", "max_completion_tokens"} & body.keys():
            body[key] = None
        if isinstance(body.get("prompt"), list):
            body["prompt"] = data.draw(st.sampled_from([["好", ""], [1, 2], [[1], [2, 3]]]))
    if case.path == "/feedback":
        body |= {"request": request, "index": 0}
        said = {"correct", "label", "text", "rating"} & {key for key, value in body.items() if value is not None}
        body |= dict.fromkeys(said) if len(said) > 1 else {}
        body |= {"correct": True} if len(said) != 1 else {}
    if case.path.endswith("/infer"):
        texts = data.draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=3))
        body |= {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}],
            "outputs": None,
        }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", list(N_EXAMPLES), ids=lambda mode: mode.value)
def test_whatever_is_asked_the_answer_is_as_described(server: Served, mode: Any) -> None:
    positive = mode is schemathesis.GenerationMode.POSITIVE
    operations = described(server.ask("/openapi.json").json)
    assert len(operations) >= 20
    if not positive:  # where nothing but a name may be told, nothing can be told wrongly
        operations = [each for each in operations if each.body or each.query]
    request = server.ask("/predict", {"model": "reviews", "inputs": ["x"]}).json["id"]
    asked: dict[str, set[int]] = {}

    def check(operation: Any) -> None:
        @settings(
            max_examples=N_EXAMPLES[mode],
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode), st.data())
        def ask(case: Any, data: st.DataObject) -> None:
            if positive:
                tamed(case, data, request)
            answer = case.call(base_url=server.address, timeout=60)
            asked.setdefault(operation.label, set()).add(answer.status_code)
            assert answer.status_code < 500 or answer.status_code == 503, answer.content[:500]
            case.validate_response(answer, checks=CHECKS)

        ask()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonInteractiveExampleWarning)
        for operation in operations:
            check(operation)
    assert server.ask("/health/ready").status == 200
    assert len(server.children()) == len(MODELS), "no process was lost"
    if positive:
        fine = {label for label, statuses in asked.items() if 200 in statuses}
        assert len(fine) >= 15, f"too little of it was understood: {sorted(set(asked) - fine)}"
    else:
        assert {400} <= set.union(*asked.values())


def resident(server: Served) -> int:
    """Bytes of memory that the server's own process holds."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("told", [True, False])
def test_a_body_of_100_mb_is_refused_while_it_comes(server: Served, told: bool) -> None:
    before, n_sent = resident(server), 0
    piece = b"x" * 2**20
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as opened:
        lines = ["POST /predict HTTP/1.1", f"host: 127.0.0.1:{server.port}", "content-type: application/json"]
        lines += ["content-length: 104857600" if told else "transfer-encoding: chunked", "", ""]
        opened.sendall("\r\n".join(lines).encode())
        with contextlib.suppress(ConnectionError):  # the server has hung up: it has said why
            while n_sent < 100:
                opened.sendall(piece if told else b"%x\r\n%s\r\n" % (len(piece), piece))
                n_sent += 1
        answer = http.client.HTTPResponse(opened)
        with contextlib.suppress(ConnectionError):  # what it said may be lost where more was sent than it took
            answer.begin()
            assert answer.status == 413
            assert json.loads(answer.read())["error"]["code"] == "body_too_large"
    assert n_sent < 40
    assert resident(server) - before < 40 * 2**20
    until(lambda: server.events()[-1].get("code") == "body_too_large")


def test_who_stops_in_the_middle_of_a_body_is_waited_for_a_while_only(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as opened:
        lines = ["POST /v2/models/reviews/infer HTTP/1.1", f"host: 127.0.0.1:{server.port}"]
        lines += ["content-type: application/json", "content-length: 100", "", "{"]
        opened.sendall("\r\n".join(lines).encode())
        assert server.ask("/predict", {"model": "reviews", "inputs": ["x"]}).status == 200, "others do not wait"
        answer = http.client.HTTPResponse(opened)
        answer.begin()
        assert answer.status == 408
        assert json.loads(answer.read()) == {"error": "the body did not arrive in time"}
