"""A classifier behind LitServe, with its batches: python their_litserve.py FOLDER PORT."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from transformers import pipeline

BATCH = 32


class Classifier(litserve.LitAPI):
    """A pipeline of transformers."""

    def setup(self, device: str) -> None:
        """See LitServe."""
        self.classifier = pipeline("text-classification", model=sys.argv[1], device=device)

    def decode_request(self, request):  # its type would be taken for a query
        """See LitServe; a request of this comparison has one text."""
        (text,) = request["inputs"]
        return str(text)

    def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
        """See LitServe: a batch."""
        found: list[dict[str, Any]] = self.classifier(inputs, truncation=True, batch_size=len(inputs))
        return found

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """See LitServe."""
        return {"predictions": [output]}


if __name__ == "__main__":
    api = Classifier(max_batch_size=BATCH, batch_timeout=float(sys.argv[3]))
    server = litserve.LitServer(api, accelerator="cpu", timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
