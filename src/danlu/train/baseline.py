"""The baseline that nothing may ship without beating, trained on the same texts."""

from __future__ import annotations

import time

from danlu.core.artifact import Artifact
from danlu.core.files import digest_of
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.stage import class_names
from danlu.model.families import TFIDF
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression
from danlu.train.examples import Score, load_examples, write_model

__all__ = ["train_baseline"]


def train_baseline(
    workspace: Workspace, name: str, dataset: Artifact, config: TfidfConfig, score: Score, progress: Progress
) -> Artifact:
    """Train the TF-IDF baseline, or find the one that the same work made before.

    Args:
        workspace: Where the artifact goes.
        name: The model's name.
        dataset: What to train on; its test split is not touched.
        config: The baseline's config.
        score: Judges the validation split.
        progress: Told that it begins.

    Raises:
        DataError: There are too few texts, or one class only.
    """
    progress.stage(f"train: {TFIDF} on {dataset.path.name}")
    key = digest_of({"dataset": dataset.digest, "family": TFIDF, **config.plain()})
    if found := workspace.with_key("model", key):
        progress.note(f"{found.path.name} is there already")
        return found
    classes = class_names(dataset)
    train, valid = (load_examples(dataset, split, classes) for split in ("train", "valid"))
    started = time.monotonic()
    classifier = TfidfLogisticRegression(config).fit(train.texts, train.labels)
    seconds = time.monotonic() - started
    scores = score(valid.labels, classifier.predict_proba(valid.texts))
    facts = {"seconds": round(seconds, 3), "best_score": scores["score"], "n_parameters": classifier.n_parameters}
    spec = {"family": TFIDF, **config.plain()}
    with workspace.create("model", name, key=key, config=spec, parents={"dataset": dataset.digest}) as draft:
        write_model(draft.folder, classifier, TFIDF, dataset, facts)
    return draft.artifact
