"""What ``danlu serve`` does and answers."""

from __future__ import annotations

import importlib.util

from danlu.cli.verb import Answer, Call
from danlu.core.errors import UsageError

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
    from danlu.core.config import read_overrides, resolve
    from danlu.serve.config import ServeConfig
    from danlu.serve.server import named_models, serve

    config = resolve(ServeConfig, [read_overrides(overrides)]).config
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
        UsageError: The name is empty or taken, or what it is to be used for is not understood.
    """
    from danlu.core.config import read_overrides, resolve
    from danlu.serve.keys import KeyConfig, make_key

    config = resolve(KeyConfig, [read_overrides(overrides)]).config
    path = config.keys or call.workspace.root / "keys.json"
    key, made = make_key(path, name, config.scopes, config.per_minute)
    rate = "" if made.per_minute is None else f", {made.per_minute} times a minute"
    text = f"{key}\n\nkey {made.id} of {made.name}: it is shown this once, and cannot be shown again\n"
    text += f"scopes: {', '.join(made.scopes)}{rate}"
    if not overrides:
        text += " (to see the board and to label, too: scopes=[ask,metrics,label] after NAME; per_minute=60: a rate)"
    facts = {"key": key, "id": made.id, "name": made.name, "scopes": list(made.scopes), "per_minute": made.per_minute}
    return Answer({**facts, "file": str(path)}, text)
