"""What ``danlu serve`` does and answers."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from danlu.cli.verb import Answer, Call
from danlu.core.errors import UsageError

if TYPE_CHECKING:
    from danlu.serve.config import ServeConfig

__all__ = ["key_made", "served"]

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def served(call: Call, targets: list[str], overrides: list[str]) -> Answer:
    """Serve until the process is told to end.

    Raises:
        UsageError: A package is missing, a model, a key, or the address.
        DanluError: A model cannot be served.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        what = f"serving needs packages that are not installed: {', '.join(missing)}"
        raise UsageError(what, advice="pip install 'danlu[serve]'")
    from danlu.board import board
    from danlu.serve.server import named_models, serve

    config = _config(overrides)
    models = named_models(call.workspace, targets)
    shown: list[str] = []

    def heard(address: str) -> None:
        shown.append(address)
        print(f"danlu serves {', '.join(models)} at {address}", flush=True)

    serve(call.workspace, models, config, heard, lambda name, digest: board(call.workspace, name, digest))
    began_with = {name: each.model.digest for name, each in models.items()}
    return Answer({"address": shown[0] if shown else None, "models": began_with}, "the server has ended")


def key_made(call: Call, name: str, overrides: list[str]) -> Answer:
    """Make a key and show it, this once.

    Raises:
        UsageError: The name is empty or taken.
    """
    from danlu.serve.keys import make_key

    path = _config(overrides).keys or call.workspace.root / "keys.json"
    key, made = make_key(path, name)
    text = f"{key}\n\nkey {made.id} of {made.name}: it is shown this once, and cannot be shown again"
    return Answer({"key": key, "id": made.id, "name": made.name, "file": str(path)}, text)


def _config(overrides: list[str]) -> ServeConfig:
    from danlu.core.config import read_overrides, resolve
    from danlu.serve.config import ServeConfig

    return resolve(ServeConfig, [read_overrides(overrides)]).config
