"""What the audit says of a pair, as one row."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from danlu.audit.behaviour import Behaviour, Cast, Questions, observe
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.data_order import DataOrderTest, data_order_test, excess_losses
from danlu.audit.examine import Findings, Question, examine
from danlu.audit.merging import Merge
from danlu.audit.resemblance import Resemblance
from danlu.audit.seed_origin import SeedTest, seed_test
from danlu.audit.siblings import SiblingTest, rank_test
from danlu.audit.unit_order import OrderTest, order_test
from danlu.audit.units import COMPONENTS
from danlu.audit.verdict import ALPHA, decide
from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from pairs import Pair
from shop import Shop

__all__ = ["COLUMNS", "Auditor"]

COLUMNS = (
    *("suspect", "reference", "relation", "called", "verdict", "types", "disguises", "exact"),
    *("p_order_ff", "z_order_ff", "basis", "layer_map", "p_order_values", "z_order_values"),
    *("p_seed", "z_seed", "p_reverse_seed", "p_siblings", "p_data_order", "z_data_order", "p_behaviour", "beyond"),
    *("clones", "bits_shared", "merge_error", "merge_left", "seconds", "peak_mib", "why"),
)
"""``called``: ``all`` of the audit, or its ``exact`` tests. ``exact``: test -> p corrected for their number. ``p_...``:
before that; ``p_behaviour``: of the test against siblings by own mistakes; ``beyond``: the calibrated tests of
behaviour in which the suspect is beyond all siblings by far. ``why``: what could not be made."""
_FEW_ORDERS = 999
_WORTH_MORE = 0.01
"""The p by a few orders from which on all are drawn."""


@dataclass
class _Row:
    """What is known of a pair so far.

    Attributes:
        values: Column -> value.
        p: Exact test -> p.
    """

    values: dict[str, Any]
    p: dict[str, float] = field(default_factory=dict)


class Auditor:
    """Audits pairs.

    Args:
        shop: The models.
        n_siblings: Siblings of the reference that a whole audit is given.
    """

    def __init__(self, shop: Shop, n_siblings: int) -> None:
        self.shop = shop
        self._n_siblings = n_siblings
        self.answers = cache(shop.answers)
        self.epochs = cache(shop.epochs)
        self.start = cache(shop.start)
        self.speaker = cache(self._speaker)

    def row(self, pair: Pair) -> dict[str, Any]:
        """Everything about a pair."""
        row = _Row({"suspect": pair.suspect, "reference": pair.reference, "relation": pair.relation})
        behaviour, began = self._behaviour(pair, row), time.monotonic()
        try:
            whole = pair.relation in ("kin", "told seed")
            (self._whole if whole else self._exact)(pair, row, behaviour)
        except UsageError as error:
            row.values |= {"verdict": "UNREADABLE", "why": str(error)}
        row.values["seconds"] = round(time.monotonic() - began, 3)
        row.values["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return row.values

    def _speaker(self, name: str) -> _Recorded:
        places, _ = self.shop.places
        return _Recorded(name, tuple(self.shop.spelt(self.answers(name).says[places])))

    def siblings(self, pair: Pair) -> list[str]:
        """The reference's siblings that have nothing to do with the suspect."""
        if self.shop.items[pair.reference].group not in ("sibling", "other length"):
            return []
        item = self.shop.items[pair.suspect]
        taken = {pair.reference, pair.suspect, item.base, *item.truth.entangled}
        every = [each.name for each in self.shop.items.values() if each.group == "sibling"]
        return [name for name in every if name not in taken]

    def _whole(self, pair: Pair, row: _Row, behaviour: Behaviour | None) -> None:
        seed = self.shop.items[pair.reference].values.get("seed")
        weights = {self.shop.path(name): weight for name, weight in self.shop.items[pair.suspect].truth.weights.items()}
        question = Question(
            suspect=self.shop.path(pair.suspect),
            reference=self.shop.path(pair.reference),
            siblings=tuple(self.shop.path(name) for name in self.siblings(pair)[: self._n_siblings]),
            parents=tuple(path for path in weights if path != self.shop.path(pair.reference)),
            start=self.start(pair.reference),
            seed=None if seed is None else str(seed),
            behaviour=behaviour,
        )
        findings = examine(question, Silent())
        row.values |= {"called": "all", "verdict": findings.verdict, **_told(findings)}
        row.values |= {"exact": json.dumps(dict(findings.p))}
        if isinstance(findings.merge, Merge):
            true = {path.name: weight for path, weight in weights.items()}
            found = dict(zip(findings.merge.parents, findings.merge.weights, strict=True))
            error = np.mean([abs(found.get(name, 0.0) - true.get(name, 0.0)) for name in {*found, *true}])
            row.values |= {"merge_error": round(float(error), 5), "merge_left": round(findings.merge.left, 5)}
        for component, test in findings.order.items():
            _put_order(row, component, test)
        _put_seed(row, findings.seed)
        row.values["p_siblings"] = "" if isinstance(findings.sibling, str) else findings.sibling.p
        with Checkpoint(question.suspect) as suspect, Checkpoint(question.reference) as reference:
            reverse = seed_test(reference, self.start(pair.reference)[0], Seeds.new(), suspect, True)
            row.values["p_reverse_seed"] = reverse.p if isinstance(reverse, SeedTest) else ""

    def _exact(self, pair: Pair, row: _Row, behaviour: Behaviour | None) -> None:
        """The tests that may convict; all orders are drawn for siblings, and where a few look like kinship."""
        full = pair.relation == "sibling"
        with (
            Checkpoint(self.shop.path(pair.suspect)) as suspect,
            Checkpoint(self.shop.path(pair.reference)) as reference,
        ):
            for component in COMPONENTS:
                few = {} if full else {"n_orders": _FEW_ORDERS}
                test = order_test(suspect, reference, component, **few)
                if isinstance(test, OrderTest) and test.p <= _WORTH_MORE and not full:
                    test = order_test(suspect, reference, component)
                _put_order(row, component, test)
            module, seeds = self.start(pair.reference)
            _put_seed(row, seed_test(suspect, module, seeds, reference, True))
            if full:
                self._by_weights(pair, row, suspect, reference)
        public = self.shop.items[pair.reference].values.get("seed") is not None
        exact = row.p | ({} if behaviour is None else behaviour.exact)
        calibrated = {} if behaviour is None else behaviour.calibrated
        verdict, corrected = decide(exact, calibrated, False, public_seed=public)
        row.values |= {"called": "exact", "verdict": verdict, "exact": json.dumps(corrected)}

    def _by_weights(self, pair: Pair, row: _Row, suspect: Checkpoint, reference: Checkpoint) -> None:
        """The test against siblings, by the weights."""
        measure = Resemblance(suspect, reference)
        values = []
        for name in self.siblings(pair):
            with Checkpoint(self.shop.path(name)) as sibling:
                values.append(measure(sibling))
        if values:
            row.values["p_siblings"] = rank_test(measure(reference), values, "units found again").p

    def _behaviour(self, pair: Pair, row: _Row) -> Behaviour | None:
        """The tests that look at no weights; None: the reference has no siblings here."""
        names = self.siblings(pair)
        if not names or pair.relation == "unrelated":
            return None
        cast = Cast(
            suspect=self.speaker(pair.suspect),
            reference=self.speaker(pair.reference),
            siblings=tuple(self.speaker(name) for name in names),
        )
        _, truths = self.shop.places
        questions = Questions(asked=truths, truths=truths, source="held out")
        found, _ = observe(cast, "see below", questions, 0, ALPHA, Silent())
        found = replace(found, data_order=self._data_order(pair, names))
        if isinstance(found.data_order, DataOrderTest):
            row.values |= {"p_data_order": found.data_order.p, "z_data_order": round(found.data_order.z, 3)}
        if isinstance(found.siblings, SiblingTest):
            row.values["p_behaviour"] = found.siblings.p
        row.values["beyond"] = json.dumps(found.beyond)
        return found

    def _data_order(self, pair: Pair, names: list[str]) -> DataOrderTest | str:
        """The test of the order of data, by what all models were asked when they were made."""
        rows, _ = self.shop.asked
        epochs = self.epochs(pair.reference)
        n = 1 + max(int(rows.max()), *(int(batch.max()) for epoch in epochs for batch in epoch))
        others = np.mean([self.answers(name).nats for name in names], axis=0, dtype=np.float64)
        excess = np.full(n, np.nan)
        losses = self.answers(pair.suspect).nats.astype(np.float64)
        excess[rows] = excess_losses(losses, self.shop.lengths(), others)
        return data_order_test(epochs, excess, subtracted=("siblings", len(names)))


@dataclass(frozen=True)
class _Recorded:
    """A model by what it answered when it was made: a :class:`danlu.audit.speaker.Speaker`."""

    name: str
    said: tuple[str, ...]
    task: Literal["language-modelling"] = "language-modelling"

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The next token at the places that all are asked."""
        assert len(questions) == len(self.said)
        return list(self.said)

    def losses(self, _texts: Sequence[str], _labels: Sequence[str] | None = None) -> str:
        """Not told here."""
        return "see the recorded losses"


def _told(findings: Findings) -> dict[str, Any]:
    why = {f"order of {name}": test for name, test in findings.order.items() if isinstance(test, str)}
    why |= {name: test for name in ("seed", "sibling") if isinstance(test := getattr(findings, name), str)}
    return {
        "types": json.dumps(findings.types),
        "disguises": json.dumps(findings.disguises),
        "clones": "" if findings.clones is None else round(findings.clones.share, 4),
        "bits_shared": round(findings.content.rounded_share, 4),
        "why": json.dumps(why) if why else "",
    }


def _put_order(row: _Row, component: str, test: OrderTest | str) -> None:
    short = "ff" if component == "feed-forward" else component
    if isinstance(test, str):
        return
    row.p[f"order of {component}"] = test.p
    row.values |= {f"p_order_{short}": test.p, f"z_order_{short}": round(test.z, 3)}
    if short == "ff":
        row.values |= {"basis": test.basis, "layer_map": json.dumps(test.layer_map)}


def _put_seed(row: _Row, test: SeedTest | str) -> None:
    if isinstance(test, SeedTest):
        row.p["seed"] = test.p
        row.values |= {"p_seed": test.p, "z_seed": round(test.z, 3)}
