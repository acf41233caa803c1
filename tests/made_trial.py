"""Models that are names only, what was found about them, and traffic that was never served: for promotions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.events import EventLog
from danlu.core.experiments import Experiment
from danlu.core.files import write_json
from danlu.core.workspace import Workspace

__all__ = ["NAME", "Traffic", "compared", "evaluated", "made_model", "proposed"]

NAME = "reviews"
_CLASSES = ("bad", "good")


def made_model(workspace: Workspace, label: str, **facts: Any) -> Artifact:
    """A model as far as the ledger knows models."""
    told = {"task": "text-classification", "family": label, "classes": list(_CLASSES), **facts}
    with workspace.create("model", NAME, key=label, config={}, parents={}) as draft:
        write_json(draft.folder / "model.json", told)
        write_json(draft.folder / "training.json", {"best_score": 0.5})
    return draft.artifact


def evaluated(workspace: Workspace, model: Artifact) -> Artifact:
    """Its evaluation, as far as a comparison names it."""
    with workspace.create("evaluation", NAME, key=model.digest, config={}, parents={"model": model.digest}) as draft:
        write_json(draft.folder / "evaluation.json", {})
    return draft.artifact


def compared(workspace: Workspace, baseline: Artifact, model: Artifact, verdict: str = "better") -> Artifact:
    """A comparison of two models."""
    parents = {label: evaluated(workspace, each).digest for label, each in (("old", baseline), ("new", model))}
    found = {"difference": 0.03, "low": 0.01, "high": 0.05, "p_holm": 0.004}
    facts: dict[str, Any] = {"baseline": "old", "primary": "macro_f1"}
    facts["models"] = [{"a": "new", "verdict": verdict, "n": 500, "metrics": {"macro_f1": found}}]
    key = f"{parents} {verdict}"
    with workspace.create("comparison", NAME, key=key, config={}, parents=parents) as draft:
        write_json(draft.folder / "comparison.json", facts)
    return draft.artifact


def proposed(workspace: Workspace, champion: Artifact, challenger: Artifact, passed: bool = True) -> Artifact:
    """A proposal, as ``danlu improve`` writes it."""
    parents = {"champion": champion.digest, "challenger": challenger.digest}
    gate = {"passed": passed, "metric": "accuracy", "difference": 0.02, "low": -0.01, "high": 0.05, "margin": 0.05}
    with workspace.create("proposal", NAME, key=f"{parents} {passed}", config={}, parents=parents) as draft:
        write_json(draft.folder / "proposal.json", {"gate": gate, "passed": passed})
    return draft.artifact


class Traffic:
    """Requests and what was said of their answers, written down as a server does.

    Args:
        workspace: Where to.
        experiment: In which they are asked.
    """

    def __init__(self, workspace: Workspace, experiment: Experiment) -> None:
        self._events, self._experiment, self._n = EventLog(workspace.events, "serve"), experiment, 0

    def ask(self, arm: str | None, unit: str, answers: Sequence[str], **facts: Any) -> str:
        """A request that was answered with these labels; its id."""
        self._n += 1
        digest = getattr(self._experiment, arm or "champion")
        told = [{"label": each, "probability": 0.9} for each in answers]
        known = {"id": f"r{self._n}", "name": NAME, "digest": digest, "status": 200, "seconds": 0.01, "answers": told}
        known |= {"experiment": self._experiment.id, "arm": arm, "unit": unit}
        self._events.write("request", **known | facts)
        return f"r{self._n}"

    def say(self, request: str, arm: str | None, kind: str = "user", index: int = 0, **said: Any) -> None:
        """What somebody said of an answer."""
        source = {"kind": kind, "id": said.pop("by", f"of {request}")}
        place = {"request": request, "index": index, "source": source}
        said |= {"arm": arm, "experiment": said.pop("experiment", self._experiment.id)}
        self._events.write("feedback", id=f"f{request}-{index}-{source}", name=NAME, **place, **said)

    def shadow(self, request: str, answers: Sequence[str] | None, **facts: Any) -> None:
        """What the challenger would have answered."""
        told = None if answers is None else [{"label": each, "probability": 0.9} for each in answers]
        known = {"request": request, "name": NAME, "experiment": self._experiment.id, "answers": told}
        self._events.write("shadow", digest=self._experiment.challenger, **known | facts)

    def question(self, request: str, why: Any, index: int = 0) -> None:
        """A question to labellers."""
        self._events.write("question", id=f"q{request}", name=NAME, request=request, index=index, why=why)

    def live(self, n: int, challenger: float, champion: float) -> None:
        """As many users, dealt out, of whom these shares are content; one says so after the other."""
        content = {"challenger": 0.0, "champion": 0.0}
        for number in range(n):
            user = f"user-{number}"
            arm = self._experiment.arm(user)
            content[arm] += {"challenger": challenger, "champion": champion}[arm]
            right = content[arm] >= 1  # as evenly as can be: no chance but that of the arms
            content[arm] -= right
            self.say(self.ask(arm, user, ["good"]), arm, correct=right)
