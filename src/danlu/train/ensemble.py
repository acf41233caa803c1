"""The ensemble: models that are trained already, answering as one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

from danlu.core.artifact import Artifact
from danlu.core.files import digest_of
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.stage import class_names
from danlu.model.ensemble import Ensemble
from danlu.model.families import ENSEMBLE, Classifier
from danlu.model.predictor import load_predictor
from danlu.train.examples import load_examples, write_model
from danlu.train.prepare import Score

__all__ = ["train_ensemble"]


def train_ensemble(
    workspace: Workspace,
    name: str,
    dataset: Artifact,
    members: Mapping[str, Artifact],
    score: Score,
    progress: Progress,
) -> Artifact:
    """Fit the weights of an ensemble on the validation split, or find the one that the same members made before.

    Args:
        workspace: Where the artifact goes.
        name: The model's name.
        dataset: What the members were trained on.
        members: The model artifacts by family.
        score: Judges the validation split.
        progress: Told that it begins.
    """
    progress.stage(f"train: {ENSEMBLE} of {', '.join(members)}")
    parents = {"dataset": dataset.digest, **{family: member.digest for family, member in members.items()}}
    key = digest_of({"family": ENSEMBLE, "parents": parents})
    if found := workspace.with_key("model", key):
        progress.note(f"{found.path.name} is there already")
        return found
    classes = class_names(dataset)
    valid = load_examples(dataset, "valid", classes)
    started = time.monotonic()
    loaded = {family: cast("Classifier", load_predictor(member).answerer) for family, member in members.items()}
    ensemble = Ensemble.fit(loaded, valid.texts, valid.labels)
    seconds = time.monotonic() - started + sum(member.json("training.json")["seconds"] for member in members.values())
    scores = score(valid.labels, ensemble.predict_proba(valid.texts))
    weights = dict(zip(members, ensemble.weights_M.tolist(), strict=True))
    progress.note(" · ".join(f"{family} {weight:.2f}" for family, weight in weights.items()))
    facts = {
        "seconds": round(seconds, 3),
        "best_score": scores["score"],
        "n_parameters": ensemble.n_parameters,
        "weights": weights,
    }
    config = {"family": ENSEMBLE, "members": list(members)}
    with workspace.create("model", name, key=key, config=config, parents=parents) as draft:
        write_model(draft.folder, ensemble, ("text-classification", ENSEMBLE), dataset, facts)
    return draft.artifact
