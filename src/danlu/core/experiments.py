"""Experiments: trials of a challenger against the champion, registered before the first request and ended once.

``refs/experiments.jsonl`` is a chain (:mod:`danlu.core.chain`), so that a plan cannot be written after the result:

    {"event": "started", "time", "name", "champion", "challenger", "plan", "by", "why"}
    {"event": "ended", "time", "experiment", "decision", "facts", "by", "why"}

An experiment's id is the beginning of the hash of the line that started it: no two have the same, and each deals the
users anew.

Which arm a user belongs to is never stored. It follows from SHA-256 over the experiment and the user, so that two
processes agree, a user keeps an arm across restarts, and the arms of two experiments have nothing to do with each
other. To whoever does not choose their own user name by it, the assignment is one of chance with exactly the stated
shares (to 2^-64).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from danlu.core.chain import Chain
from danlu.core.errors import RefusedError, UsageError
from danlu.core.ledger import login_name, utc_now

__all__ = ["Experiment", "Experiments", "arm_of"]

_STARTED = {"time", "name", "champion", "challenger", "plan", "by", "why"}
_ENDED = {"time", "experiment", "decision", "facts", "by", "why"}
_ID_LENGTH = 16
"""Hexadecimal digits of an id."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A trial of a challenger.

    Attributes:
        id: Unique.
        time: When it was registered, UTC, ISO 8601.
        name: The served name.
        champion: Digest of the model that answers.
        challenger: Digest of the model that is tried.
        plan: What is settled beforehand: ``margin budget level mode share``
            (:class:`danlu.improve.compare.ComparisonPlan`).
        by: Who started it.
        why: What for.
        ended: When; None while it runs.
        decision: What it came to: ``superior inferior equivalent inconclusive``, or ``stopped`` where somebody ended it
            before it was decided; empty while it runs.
        facts: What was known when it ended, as :class:`danlu.improve.compare.Comparison` has it; empty where nothing
            was.
        ended_by: Who ended it.
        ended_why: Why, where somebody said.
    """

    id: str
    time: str
    name: str
    champion: str
    challenger: str
    plan: dict[str, Any]
    by: str
    why: str
    ended: str | None = None
    decision: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    ended_by: str = ""
    ended_why: str = ""

    def arm(self, user: str) -> str:
        """Who answers a user: ``challenger`` or ``champion``; in the shadow always the champion."""
        if self.plan["mode"] == "shadow":
            return "champion"
        share = self.plan["share"]
        return arm_of(user, self.id, {"challenger": share, "champion": 1 - share})


class Experiments:
    """The experiments of a workspace.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chain = Chain(path, "the chain of experiments")

    def start(
        self, name: str, champion: str, challenger: str, plan: Mapping[str, Any], by: str | None = None, why: str = ""
    ) -> Experiment:
        """Register an experiment, which runs from now on.

        Args:
            name: The served name; one experiment of it runs at a time.
            champion: Digest of the model that answers now.
            challenger: Digest of the model to be tried.
            plan: See :class:`Experiment`.
            by: Who says so; None is who is logged in here.
            why: What for.

        Raises:
            RefusedError: Another one of the name runs.
            UsageError: Champion and challenger are one model, or the plan says not how users are to be dealt out.
            CorruptError: The chain is broken.
        """
        if champion == challenger:
            raise UsageError(f"champion and challenger are one model: {champion[:12]}", where=name)
        _check_plan(name, plan)
        facts = {
            "event": "started",
            "time": utc_now(),
            "name": name,
            "champion": champion,
            "challenger": challenger,
            "plan": dict(plan),
            "by": by or login_name(),
            "why": why,
        }

        def alone(before: Sequence[Mapping[str, Any]]) -> None:
            if running := _running(self._read(before), name):
                raise RefusedError(
                    f"an experiment of {name} runs already: {running.id}, since {running.time}, by {running.by}",
                    where=str(self.path),
                    advice=f"promote or stop it first (danlu promote {name}, or stop=true why=...)",
                )

        return self._read([self._chain.append(facts, alone)])[0]

    def end(
        self, experiment: str, decision: str, facts: Mapping[str, Any], by: str | None = None, *, why: str = ""
    ) -> Experiment:
        """End an experiment. Ended again with the same decision, it stays as it was: the first end stands.

        Args:
            experiment: The id of it.
            decision: What it came to; see :class:`Experiment`.
            facts: What is known now, as JSON values.
            by: Who says so; None is who is logged in here.
            why: Why, where there is more to say.

        Raises:
            RefusedError: It has ended with another decision.
            UsageError: There is no such experiment.
            CorruptError: The chain is broken.
        """
        line = {
            "event": "ended",
            "time": utc_now(),
            "experiment": experiment,
            "decision": decision,
            "facts": dict(facts),
            "by": by or login_name(),
            "why": why,
        }

        def not_yet(before: Sequence[Mapping[str, Any]]) -> None:
            known = self._find(before, experiment)
            if known.ended:
                raise RefusedError(
                    f"experiment {experiment} ended {known.ended}: {known.decision}, by {known.ended_by}",
                    where=str(self.path),
                    advice="its decision stands; start another experiment to try again",
                )

        try:
            self._chain.append(line, not_yet)
        except RefusedError:
            if self._find(self._chain.poll(), experiment).decision != decision:
                raise
        return self._find(self._chain.poll(), experiment)

    def running(self, name: str) -> Experiment | None:
        """The experiment of a name that runs now; may be asked often, as an unchanged file is not read again.

        Raises:
            CorruptError: The chain is broken.
        """
        return _running(self._read(self._chain.poll()), name)

    def all(self, name: str | None = None) -> list[Experiment]:
        """Every experiment of a name, or of all names, oldest first; errors as of :meth:`running`."""
        return [each for each in self._read(self._chain.poll()) if name in (None, each.name)]

    def _find(self, lines: Sequence[Mapping[str, Any]], experiment: str) -> Experiment:
        for each in self._read(lines):
            if each.id == experiment:
                return each
        raise UsageError(f"there is no experiment {experiment!r}", where=str(self.path), advice="danlu log lists them")

    def _read(self, lines: Sequence[Mapping[str, Any]]) -> list[Experiment]:
        found: dict[str, Experiment] = {}
        for line in lines:
            said = {key: value for key, value in line.items() if key not in ("seq", "event", "prev", "hash")}
            event = line.get("event")
            if event == "started" and said.keys() == _STARTED:
                number = str(line["hash"])[:_ID_LENGTH]
                found[number] = Experiment(id=number, **said)
            elif event == "ended" and said.keys() == _ENDED and said["experiment"] in found:
                ended = found[said["experiment"]]
                found[ended.id] = replace(
                    ended,
                    ended=said["time"],
                    decision=said["decision"],
                    facts=said["facts"],
                    ended_by=said["by"],
                    ended_why=said["why"],
                )
            else:
                raise self._chain.broken(int(line["seq"]) + 1, "is not an entry of an experiment")
        return list(found.values())


def _running(experiments: Sequence[Experiment], name: str) -> Experiment | None:
    return next((each for each in experiments if each.name == name and each.ended is None), None)


def _check_plan(name: str, plan: Mapping[str, Any]) -> None:
    """Whether a server can deal users out by it."""
    mode, share = plan.get("mode"), plan.get("share")
    if mode not in ("live", "shadow") or not isinstance(share, int | float) or not 0 < share < 1:
        raise UsageError(
            f"a plan needs a mode (live, shadow) and a share between 0 and 1, not {mode!r} and {share!r}", where=name
        )


def arm_of(user: str, experiment: str, shares: Mapping[str, float]) -> str:
    """The arm of a user.

    The unit interval is cut in the order of ``shares``. Enlarging the share of the first arm therefore moves users
    into it and none out of it: name the challenger first, and it can be given more traffic without anybody going back
    and forth. (The comparison is of one share; one that is enlarged is a new experiment.)

    Args:
        user: Whatever stays the same about who asks: a key's id, an account, a session.
        experiment: Its id, with everything that should deal anew.
        shares: Arm -> share of users; they sum to 1.

    Raises:
        UsageError: The shares are no shares.
    """
    if not shares or any(not share >= 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1.0):
        raise UsageError(
            f"the shares of an experiment must be 0 or more and sum to 1, not {dict(shares)}", where=experiment
        )
    name = experiment.encode()
    digest = hashlib.sha256(len(name).to_bytes(8, "big") + name + user.encode(errors="surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    chosen, upper = "", 0.0
    for arm, share in shares.items():
        # The last arm with a share also takes what shares that sum to a hair less than 1 leave over.
        if share > 0 and (not chosen or place >= upper):
            chosen = arm
        upper += share
    return chosen
