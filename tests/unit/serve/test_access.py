"""Who is let in where: every route and every method of the application."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from danlu.serve.keys import Scope, make_key
from made_app import MadeApp

FREE = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/", "/assets/{file}"}
"""What needs no key: whether the server lives, and the files of the page."""
SCOPES = {"/metrics": "metrics", "/board": "metrics", "/label": "label"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "INVENTED")
FILLED = {
    "{name:path}": "reviews@champion",
    "{name}": "reviews@champion",
    "{version}": f"{1:064x}",
    "{file}": "page.js",
}


def filled(path: str) -> str:
    for part, value in FILLED.items():
        path = path.replace(part, value)
    return path


@pytest.fixture
def app(tmp_path: Path) -> MadeApp:
    with MadeApp(tmp_path / "workspace") as made:
        yield made


def test_every_route_and_method_needs_a_key_of_its_scope(app: MadeApp) -> None:
    keys = {scope: make_key(app.keys, scope, [scope])[0] for scope in ("ask", "metrics", "label")}
    paths = sorted({path for path, _ in app.routes})
    assert len(paths) >= 20
    assert {*FREE, *SCOPES} <= set(paths)
    for path in [*paths, "/nothing", "/v2/nothing", "/health", "/assets/nothing.js", "/health/live/"]:
        for method in METHODS:
            found = app.ask(filled(path), method=method)
            if path in FREE:
                assert found.status in (200, 405, 415), (path, method)
            else:
                assert found.status == 401, (path, method)
                assert found.headers["www-authenticate"] == "Bearer"
            for scope, key in keys.items():
                found = app.ask(filled(path), method=method, authorization=f"Bearer {key}")
                assert found.status != 401
                if path not in FREE and scope != SCOPES.get(path, "ask"):
                    assert found.status == 403, (path, method, scope)
                else:
                    assert found.status != 403, (path, method, scope)
    assert app.events("request")
    assert not any(event["status"] < 300 and "key" not in event for event in app.events("request"))


def test_every_route_refuses_other_hosts_and_pages_of_other_sites(app: MadeApp) -> None:
    for path in sorted({path for path, _ in app.routes}):
        for method in METHODS:
            for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}):
                found = app.ask(filled(path), method=method, **headers)
                assert found.status == 403, (path, method, headers)
                assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/..%2fapp.py",
        "/assets/%2e%2e/app.py",
        "/assets/..%5capp.py",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/index.html%00.js",
        "/assets/",
        "/assets/.",
        "/v1/models/../../keys.json",
        "/v1/models/%2fetc%2fpasswd",
        "/v2/models/..",
        "/v2/models/../../etc/passwd",
        "/v2/models/..%2f..%2fetc%2fpasswd/ready",
        "/v2/models/reviews@champion/versions/..",
        "/board?model=../../keys.json",
        "/label?model=/etc/passwd",
    ],
)
def test_no_name_becomes_a_path(app: MadeApp, path: str) -> None:
    found = app.ask(path)
    assert found.status == 404
    assert len(found.body) < 400


def test_the_page_loads_nothing_from_elsewhere_and_is_shown_nowhere_else(app: MadeApp) -> None:
    for path in ("/", "/assets/page.js"):
        found = app.ask(path)
        assert found.status == 200
        policy = found.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert found.headers["x-frame-options"] == "DENY"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
    assert app.ask("/").headers["content-type"] == "text/html; charset=utf-8"
    assert app.ask("/assets/page.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert b"<script>" not in app.ask("/").body
    assert app.events("request") == [], "whoever looks at the page asks no model"


def test_a_key_is_written_nowhere_wherever_it_is_put(app: MadeApp) -> None:
    key, made = make_key(app.keys, "everything", get_args(Scope))
    secret = key.split("-", 2)[2]
    answers = [
        app.ask("/v1/models", authorization=f"Bearer {key}"),
        app.ask("/v1/models", authorization=f"Basic {key}"),
        app.ask("/v1/models", authorization=key),
        app.ask(f"/v1/models?key={key}"),
        app.ask(f"/{key}"),
        app.ask("/predict", {"inputs": ["good"], "key": key}, authorization=f"Bearer {key}"),
        app.ask("/predict", {"inputs": ["good"]}, authorization=f"Bearer {key}"),
        app.ask("/predict", {"inputs": ["good"]}, authorization=f"Bearer {key}x", x_api_key=key),
    ]
    assert [answer.status for answer in answers] == [200, 401, 401, 401, 401, 400, 200, 401]
    written = "".join(path.read_text() for path in app.workspace.events.iterdir())
    assert made.id in written
    assert secret not in written
    assert not any(secret.encode() in answer.body for answer in answers)
