"""A model behind an OpenAI-compatible endpoint on this machine: next tokens, and the log-probabilities of prompts.

Only what an audit asks for: one token that is the likeliest, or an echoed prompt.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from danlu.audit.speaker import NEXT_TOKEN
from danlu.model.decode import prompt_batch
from danlu.model.language import NeuralLanguageModel
from shop import MAX_LEN

__all__ = ["served"]


@contextlib.contextmanager
def served(folder: Path, name: str, port: int) -> Iterator[str]:
    """A server while the block runs.

    Args:
        folder: The model, in danlu's layout.
        name: What the server calls it.
        port: Where on this machine it listens; 0: wherever it may.

    Yields:
        Its address, up to ``/v1``.

    Raises:
        OSError: Something listens there already.
    """
    model, alone = NeuralLanguageModel.load(folder), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.path == "/v1/completions" and asked["model"] == name
            with alone:
                answer = _answer(model, asked) if known else {"error": {"message": "no such model"}}
            content = json.dumps({"model": name, **answer}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nobody reads a log of it."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def _answer(model: NeuralLanguageModel, asked: dict[str, Any]) -> dict[str, Any]:
    """What the model says to a request."""
    prompt = str(asked["prompt"])
    if not asked.get("echo"):
        while model.count_tokens([prompt])[0] >= MAX_LEN:  # the end of it is what the model sees
            prompt = prompt[1:]
        (text,) = model.write([prompt], NEXT_TOKEN)
        return {"choices": [{"index": 0, "text": text}]}
    ids = model.tokenizer.encode(prompt, add_special_tokens=False).ids
    with torch.inference_mode():
        logits_BTV = model.module(prompt_batch([[model.special.begin, *ids]], model.special.begin)).logits
    told = torch.tensor(ids, dtype=torch.long)
    nats = -logits_BTV[0, :-1].float().log_softmax(-1).gather(1, told[:, None])[:, 0]
    tokens = [model.tokenizer.id_to_token(number) for number in (model.special.begin, *ids)]
    logprobs = {"tokens": tokens, "token_logprobs": [None, *(-nats).tolist()]}
    return {"choices": [{"index": 0, "text": prompt, "logprobs": logprobs}]}
