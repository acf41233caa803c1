"""A classifier behind FastAPI as many people write it: python their_fastapi.py FOLDER PORT."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classifier = pipeline("text-classification", model=sys.argv[1], device="cpu")


class Body(BaseModel):
    """Texts."""

    inputs: list[str]


@app.post("/predict")
def predict(body: Body) -> dict[str, Any]:
    """Their classes."""
    return {"predictions": classifier(body.inputs, truncation=True)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
