"""What each verb answers: facts for programs, a few lines for people."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from danlu.cli.tables import make_table as _table
from danlu.cli.verb import Answer
from danlu.core.artifact import Artifact
from danlu.core.config import Layer, leaves
from danlu.core.workspace import Workspace

if TYPE_CHECKING:
    from danlu.doctor import Finding
    from danlu.model.predictor import Predictor
    from danlu.pipeline import Ran
    from danlu.recipe import Loaded
    from danlu.train.plan import Plan

__all__ = [
    "audited",
    "compared",
    "configured",
    "evaluated",
    "examined",
    "exported",
    "fetched",
    "logged",
    "planned",
    "predicted",
    "prepared",
    "ran",
    "schema",
    "trained",
    "tuned",
]

_METRICS = {
    "macro_f1": ("macro F1", 100, " points"),
    "accuracy": ("accuracy", 100, " points"),
    "auroc": ("AUROC", 100, " points"),
    "bits_per_character": ("bits per character", 1, ""),
    "perplexity_per_token": ("perplexity per token", 1, ""),
    "chrf": ("chrF", 1, ""),
    "bleu": ("BLEU", 1, ""),
    "exact_match": ("exact", 100, " points"),
    "placeholders_kept": ("placeholders kept", 100, " points"),
}
"""What a metric is called, what a difference of it is multiplied by to be read, and in which unit it is then."""

_BOARDS = {
    "text-classification": ("macro_f1", "accuracy", "auroc"),
    "image-classification": ("accuracy", "macro_f1", "auroc"),
    "language-modelling": ("bits_per_character", "perplexity_per_token"),
    "translation": ("chrf", "bleu", "exact_match", "placeholders_kept"),
}
"""The metrics on a task's leaderboard."""

_WRITING = {"max_new_tokens": 100, "temperature": 0.8, "top_p": 0.95}
"""How a text is continued unless something else is asked for."""

_REFUSED = 3
_ENOUGH_TO_TRY = 8
"""Characters of an example worth trying."""


def ran(result: Ran) -> Answer:
    """A whole run: the leaderboard, the gate's decision, where the report is, what to try next."""
    gate, name, candidate = result.gate, result.recipe.name, next(iter(result.models))
    board = {label: evaluation.json("evaluation.json") for label, evaluation in result.evaluations.items()}
    table = _leaderboard(board, {label: model.json("training.json") for label, model in result.models.items()})
    shown = {"better": "better than", "worse": "worse than"}.get(gate.verdict, "not shown to be better than")
    metric, times, unit = _METRICS[gate.metric]
    sentence = (
        f"{candidate} is {shown} {gate.baseline}: {metric} {times * gate.difference:+.2f}{unit} "
        f"({times * gate.low:+.2f} to {times * gate.high:+.2f}), p = {gate.p:.2g}"
    )
    refusal = "" if gate.passed else "\nThe gate refused: only a model that beats the baseline becomes champion."
    after = (
        f"\n{sentence}{refusal}\n\nreport      {result.report.path / 'report.html'}\n"
        f"model card  {result.report.path / 'card.md'}\n\n"
        f"try next    danlu predict {name}@{result.alias} {_example(result.dataset)}\n"
        f"            danlu compare {name}-{gate.baseline}@latest {name}@{result.alias}\n            danlu log"
    )
    facts = {
        "name": name,
        "model": str(result.models[candidate].path),
        "dataset": str(result.dataset.path),
        "report": str(result.report.path / "report.html"),
        "gate": vars(gate),
        "metrics": {label: facts["metrics"] for label, facts in board.items()},
    }
    return Answer(facts, Group("", table, after), 0 if gate.passed else _REFUSED)


def _example(dataset: Artifact) -> str:
    """A text of the test split to try, short and quoted for a shell; of pictures, what a file could be called."""
    from danlu.data.stage import iterate_split

    if "image" in dataset.config["columns"]:
        return "PICTURE.png"
    texts = next(iterate_split(dataset, "test", ["text"], 100)).column("text").to_pylist()
    shortest = min((text for text in texts if len(text) >= _ENOUGH_TO_TRY), key=len, default=texts[0])
    return shlex.quote(shortest[:60].replace("\n", " "))


def prepared(dataset: Artifact, card: Artifact) -> Answer:
    """A dataset: how much was read, kept and dropped."""
    summary = dataset.json("summary.json")
    facts = {"dataset": str(dataset.path), "card": str(card.path / "card.html"), "summary": summary}
    facts["measured"] = dataset.manifest.get("measured", {})
    table = _table("split", "records")
    for split, count in summary["splits"].items():
        table.add_row(split, f"{count['n']:,}")
    return Answer(facts, Group(table, f"\ndataset    {dataset.path}\ndata card  {card.path / 'card.html'}"))


def trained(model: Artifact) -> Answer:
    """A model: where it is and how good it was on the validation split."""
    facts = model.json("training.json")
    score = _score(facts)
    text = f"model       {model.path}\nvalid score {score}\ntook        {facts['seconds']:.1f} s"
    return Answer({"model": str(model.path), "digest": model.digest, **facts}, text)


def tuned(tuning: Artifact, recipe: Path, overrides: Sequence[str]) -> Answer:
    """A search: the best values beside the recipe's own, and what to type to use them."""
    facts, page = tuning.json("trials.json"), tuning.path / "tune.html"
    best, own, counts = facts["best"], facts["own"], facts["counts"]
    as_own = next((trial for trial in facts["trials"] if trial["number"] == own["trial"]), None)
    table = _table("key", "best", "the recipe's own")
    for key, value in best["values"].items():
        table.add_row(key, str(value), str(own["values"][key]))
    own_score = None if as_own is None else as_own["score"]
    table.add_row("valid score", f"{best['score']:.4f}", "not tried" if own_score is None else f"{own_score:.4f}")
    words = [str(recipe), *(word for word in overrides if not word.startswith("tune.")), *facts["words"]]
    command = shlex.join(["danlu", "train", *words])
    other = [f"{key} was {a} in a trial and is {b} in the recipe" for key, (a, b) in facts["length"].items()]
    after = (
        f"\n{len(facts['trials'])} trials: {counts['complete']} complete, {counts['pruned']} pruned, "
        f"{counts['failed']} failed; trial {best['trial']} is the best\n"
        "The best of many scores on one validation split is optimistic. The test split had no part in the search:\n"
        "danlu run with these values tells what they are worth.\n"
        + "".join(f"{line}: for another length other values may be best.\n" for line in other)
        + f"\nsearch page {page}\nuse it      {command}"
    )
    return Answer({"tuning": str(tuning.path), "page": str(page), "command": command, **facts}, Group(table, after))


def planned(plan: Plan) -> Answer:
    """The expected cost of training."""
    rows = {
        "family": plan.family,
        "parameters": f"{plan.n_parameters:,}",
        "steps": f"{plan.n_steps:,}",
        "tokens": f"{plan.n_tokens:,} and {plan.padding_share:.1%} padding",
        "operations": f"{plan.flops:.3g} floating-point",
        "memory": f"{plan.memory_bytes / 2**30:.2f} GiB",
        "time": f"{plan.seconds:.0f} s of steps on this machine as busy as it is now",
        "evaluations": f"{plan.evaluation_seconds:.0f} s",
    }
    table = _table("", "")
    for name, value in rows.items():
        table.add_row(name, value)
    return Answer(vars(plan), table)


def evaluated(evaluation: Artifact) -> Answer:
    """An evaluation: every metric with its interval."""
    facts = evaluation.json("evaluation.json")
    table = _table("metric", "value", "interval", "n")
    for name, found in facts["metrics"].items():
        value, low, high = ("–" if found[key] is None else f"{found[key]:.4f}" for key in ("value", "low", "high"))
        table.add_row(name, value, f"{low} to {high}", f"{found['n']:,}")
    return Answer({"evaluation": str(evaluation.path), **facts}, Group(table, f"\nevaluation  {evaluation.path}"))


def compared(comparison: Artifact) -> Answer:
    """A comparison: the difference of each model from the baseline."""
    facts = comparison.json("comparison.json")
    metric, _, _ = _METRICS[facts["primary"]]
    table = _table("model", f"{metric} against {facts['baseline']}", "interval", "p (Holm)", "verdict", "n")
    for model in facts["models"]:
        found = model["metrics"][facts["primary"]]
        table.add_row(
            model["a"],
            f"{found['difference']:+.4f}",
            f"{found['low']:+.4f} to {found['high']:+.4f}",
            f"{found['p_holm']:.2g}",
            model["verdict"],
            f"{model['n']:,}",
        )
    return Answer({"comparison": str(comparison.path), **facts}, Group(table, f"\ncomparison  {comparison.path}"))


def predicted(asked: Sequence[str], predictor: Predictor, decode: Sequence[str]) -> Answer:
    """What the model answers to each text or picture.

    Raises:
        UsageError: The task writes no text, so that there is nothing to decode; or a value for decoding is wrong.
        DataError: A picture cannot be read, or has another size.
    """
    from danlu.core.config import read_overrides, resolve
    from danlu.core.errors import UsageError
    from danlu.model.decode import DecodeConfig

    found: list[dict[str, Any]]
    columns: tuple[str, ...]
    started = time.perf_counter()
    if predictor.task == "language-modelling":
        config = resolve(DecodeConfig, [Layer(_WRITING, {}), read_overrides(decode)]).config
        found = [{"text": text, "continuation": more} for text, more in
                 zip(asked, predictor.write(asked, config), strict=True)]  # fmt: skip
        columns = ("text", "continuation")
    elif decode:
        raise UsageError("this model writes no text of its own", where="--decode", advice="leave --decode out")
    elif predictor.task == "translation":
        found = [{"text": text, "translation": said} for text, said in
                 zip(asked, predictor.translate(asked), strict=True)]  # fmt: skip
        columns = ("translation", "text")
    else:
        found = _classified(asked, predictor)
        columns = ("label", "probability", "text")
    milliseconds = (time.perf_counter() - started) * 1000
    table = _table(*columns)
    for answer in found:
        shown = answer | ({"probability": f"{max(answer['probabilities'].values()):.3f}"} if "label" in answer else {})
        table.add_row(*(str(shown[column]) for column in columns))
    return Answer({"predictions": found, "milliseconds": round(milliseconds, 3)}, table)


def _classified(asked: Sequence[str], predictor: Predictor) -> list[dict[str, Any]]:
    """The likeliest class of each text or picture, with the probability of every class."""
    if predictor.task == "image-classification":
        probabilities = predictor.image_proba(predictor.open_images([Path(path) for path in asked]))
    else:
        probabilities = predictor.predict_proba(asked)
    return [
        {
            "text": text,
            "label": predictor.classes[int(row.argmax())],
            "probabilities": {name: round(float(p), 6) for name, p in zip(predictor.classes, row, strict=True)},
        }
        for text, row in zip(asked, probabilities, strict=True)
    ]


def exported(model: Artifact, folder: Path) -> Answer:
    """Where a model was written to, and what of it."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    table = _table("file", "bytes")
    for name, size in sizes.items():
        table.add_row(name, f"{size:,}")
    facts = {"model": str(model.path), "digest": model.digest, "folder": str(folder.absolute()), "files": sizes}
    return Answer(facts, Group(table, f"\nfolder  {folder}"))


def audited(found: Artifact) -> Answer:
    """What an audit came to, test by test."""
    facts = found.json("audit.json")
    table = _table("test", "p", "corrected", "z")
    made = {f"order of {name}": test for name, test in facts["order"].items()}
    made |= {"seed": facts["seed"], "siblings": facts["sibling"]}
    behaviour = facts["behaviour"] or {}
    made |= {"data order": behaviour["data_order"], "siblings by behaviour": behaviour["siblings"]} if behaviour else {}
    for name, test in made.items():
        if isinstance(test, str):
            table.add_row(name, "–", "–", f"not made: {test}")
        else:
            z = f"{test['z']:.1f}" if "z" in test else "–"
            table.add_row(name, f"{test['p']:.2g}", f"{facts['p'][name]:.2g}", z)
    if isinstance(agreement := behaviour.get("agreement"), dict):
        far = "far beyond" if "agreement" in behaviour["beyond"] else "not far beyond"
        table.add_row("agreement", f"{agreement['p']:.2g}", "not exact", f"{far} all unrelated models")
    done = "; ".join([*facts["types"], *facts["disguises"]])
    text = f"\n{facts['verdict']}{f': {done}' if done else ''}\n\nreport  {found.path / 'audit.html'}"
    return Answer({"audit": str(found.path), **facts}, Group(table, text))


def logged(workspace: Workspace) -> Answer:
    """Every model with its aliases, the runs that have made none yet, and all that was ever decided."""
    from danlu.cli.curves import running
    from danlu.cli.promoting import history

    entries = workspace.ledger.entries()
    now = {(entry.name, entry.alias): entry.digest for entry in entries}
    models = _table("model", "family", "valid score", "called", "made", "folder")
    listed = []
    for model in workspace.all("model"):
        aliases = sorted(f"{name}@{alias}" for (name, alias), digest in now.items() if digest == model.digest)
        family, facts = model.json("model.json")["family"], model.json("training.json")
        made = str(model.manifest["created"])
        models.add_row(model.name, family, _score(facts), ", ".join(aliases), made, _short(model.path))
        listed.append({"name": model.name, "family": family, "aliases": aliases, "path": str(model.path), **facts})
    runs, begun = running(workspace)
    trials = workspace.experiments.all()
    facts = {
        "models": listed,
        "runs": runs,
        "ledger": [vars(entry) for entry in entries],
        "experiments": [vars(each) for each in trials],
    }
    shown: list[RenderableType] = [begun, ""] if runs else []
    return Answer(facts, Group(models, "", *shown, history(entries, trials)))


def configured(loaded: Loaded) -> Answer:
    """Every value of a recipe with its origin."""
    table = _table("key", "value", "from")
    values = {}
    for key, value in leaves(loaded.recipe.plain()):
        origin = loaded.resolved.origins[key]
        table.add_row(key, str(value), origin)
        values[key] = {"value": value, "from": origin}
    return Answer({"recipe": loaded.recipe.plain(), "values": values}, table)


def schema(document: dict[str, Any]) -> Answer:
    """The JSON schema, for both kinds of reader."""
    import json

    return Answer(document, json.dumps(document, indent=1, ensure_ascii=False))


def examined(findings: Sequence[Finding]) -> Answer:
    """What the doctor found."""
    table = _table("", "what", "found")
    for finding in findings:
        table.add_row("ok" if finding.ok else "FAILED", finding.what, finding.found)
    ok = all(finding.ok for finding in findings)
    return Answer({"ok": ok, "findings": [vars(finding) for finding in findings]}, table, 0 if ok else 1)


def fetched(name: str, folder: Path) -> Answer:
    """Where a sample is."""
    return Answer({"sample": name, "folder": str(folder)}, f"{name}  {folder}")


def _leaderboard(board: dict[str, dict[str, Any]], training: dict[str, dict[str, Any]]) -> Table:
    shown = _BOARDS[next(iter(board.values()))["task"]]
    table = _table("model", *(_METRICS[name][0] for name in shown), "parameters", "training", "ms each")
    for label, facts in board.items():
        metrics, cost = facts["metrics"], training[label]
        values = [_with_interval(metrics[name]) for name in shown]
        milliseconds = f"{facts['latency_ms']['mean']:.2f}"
        table.add_row(label, *values, f"{cost['n_parameters']:,}", f"{cost['seconds']:.0f} s", milliseconds)
    return table


def _with_interval(metric: dict[str, Any]) -> str:
    value, low, high = (
        "–" if (number := metric[key]) is None else f"{number:.4f}" if abs(number) < 10 else f"{number:.2f}"
        for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def _score(facts: dict[str, Any]) -> str:
    """How good a model was on the validation split, where that was measured."""
    score = facts.get("best_score")
    return "–" if score is None else f"{score:.4f}"


def _short(path: Path) -> str:
    """A path from here on, where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
