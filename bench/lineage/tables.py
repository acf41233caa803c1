"""What the benchmark's rows amount to: validity, power, typing, direction, parents, cost."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from baselines import THRESHOLDS
from danlu.audit.verdict import ALPHA
from plan import Item
from published_tools import TOOLS

__all__ = [
    "EXACT",
    "Halves",
    "Rows",
    "Table",
    "convictions",
    "exact_p",
    "false_alarms",
    "fractions",
    "interval",
    "kinds",
    "lengths",
    "power",
    "prices",
    "thresholds",
    "validity",
]

Rows = Sequence[Mapping[str, str]]
Table = list[dict[str, Any]]

EXACT = {
    "p_order_ff": "order of hidden units",
    "p_order_values": "order of values",
    "p_seed": "seed",
    "p_data_order": "order of data",
    "p_siblings": "siblings, by weights",
    "p_behaviour": "siblings, by mistakes",
}
"""Column of pairs.csv -> the exact test whose p it holds."""
_FALSE = 0.01
"""Share of unrelated pairs that a published measure may take for kin, at its threshold."""
_CONVICTED = ("PROVEN", "STRONG")
_ANY = ("PROVEN", "STRONG", "SHARED START")


@dataclass(frozen=True)
class Halves:
    """Which pairs set thresholds, and which are reported.

    Attributes:
        first: Bases of the first half.
    """

    first: frozenset[str]

    @classmethod
    def of(cls, references: Sequence[str], siblings: Sequence[str]) -> Halves:
        """The first half of the references, and of the siblings that nothing is derived from."""
        free = [name for name in siblings if name not in references]
        return cls(frozenset((*references[: len(references) // 2], *free[: len(free) // 2])))

    def sets(self, row: Mapping[str, str], base: str) -> bool:
        """Whether a pair sets thresholds: both its sides belong to the first half."""
        return row["reference"] in self.first and base in self.first

    def reports(self, row: Mapping[str, str], base: str) -> bool:
        """Whether it is reported: neither does."""
        return row["reference"] not in self.first and base not in self.first


def interval(k: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share (Clopper & Pearson, 1934)."""
    if n == 0:
        return math.nan, math.nan
    low = 0.0 if k == 0 else float(stats.beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(stats.beta.ppf(0.975, k + 1, n - k))
    return low, high


def exact_p(pairs: Rows, column: str) -> np.ndarray:
    """The p-values of a test on pairs of siblings."""
    return np.array([float(row[column]) for row in pairs if row["relation"] == "sibling" and row[column]])


def validity(pairs: Rows) -> Table:
    """Whether p-values of independent models are uniform, or at least no smaller; and who was convicted.

    Of the tests against siblings p is one of a few shares, and of the test of the seed it is that of the best of some
    ways times their number: larger than uniform ones. What must not be is p-values that are too small.
    """
    table: Table = []
    for column, name in EXACT.items():
        p = exact_p(pairs, column)
        if len(p) == 0:
            continue
        both, small = (stats.kstest(p, "uniform", alternative=side) for side in ("two-sided", "greater"))
        table.append(
            {
                "test": name,
                "pairs": len(p),
                "smallest_p": float(p.min()),
                "share_up_to_0.05": float((p <= 0.05).mean()),
                "ks": float(both.statistic),
                "ks_p": float(both.pvalue),
                "ks_p_too_small": float(small.pvalue),
            }
        )
    return table


def convictions(pairs: Rows) -> Table:
    """How many pairs that are no kin were convicted, and the bound on the rate (one-sided, 95%)."""
    table: Table = []
    for relation in ("sibling", "unrelated", "told seed"):
        rows = [row for row in pairs if row["relation"] == relation]
        if rows:
            n, k = len(rows), sum(row["verdict"] in _CONVICTED for row in rows)
            bound = 1.0 if k == n else float(stats.beta.ppf(0.95, k + 1, n - k))
            shared = sum(row["verdict"] == "SHARED START" for row in rows)
            table.append({"relation": relation, "pairs": n, "convicted": k, "bound": bound, "shared_start": shared})
    return table


def thresholds(scores: Rows, items: Mapping[str, Item], halves: Halves) -> dict[str, float]:
    """The score of each published measure that 1% of the first half's unrelated pairs exceed; a tool's is its own."""
    known = defaultdict(list)
    for row in scores:
        unrelated = row["measure"] not in TOOLS and row["relation"] in ("sibling", "unrelated")
        if unrelated and halves.sets(row, items[row["suspect"]].base):
            known[row["measure"]].append(float(row["value"]))
    found = {
        measure: float(np.quantile([v for v in values if not math.isnan(v)] or [math.inf], 1 - _FALSE))
        for measure, values in known.items()
    }
    run = dict.fromkeys(row["measure"] for row in scores if row["measure"] in TOOLS)
    return found | {tool: THRESHOLDS[tool] for tool in run}


def power(pairs: Rows, scores: Rows, items: Mapping[str, Item], halves: Halves, most: Mapping[str, float]) -> Table:
    """How many of every derivation and attack the audit finds, and how many each published measure does.

    The audit's rate is over all bases, for nothing was set on any, and so is that of a tool with a threshold of its
    own; that of a measure is over the reported half.
    """
    found: dict[tuple[str, str], list[bool]] = defaultdict(list)
    theirs: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in pairs:
        if row["relation"] == "kin":
            for key in _keys(items[row["suspect"]]):
                found[key].append(row["verdict"] in _CONVICTED)
    for row in scores:
        if row["relation"] == "kin" and (row["measure"] in TOOLS or halves.reports(row, items[row["suspect"]].base)):
            for key in _keys(items[row["suspect"]]):
                theirs[key][row["measure"]].append(float(row["value"]) > most.get(row["measure"], math.inf))
    table: Table = []
    for (group, label), hits in found.items():
        low, high = interval(sum(hits), len(hits))
        row_ = {"group": group, "label": label, "n": len(hits), "found": sum(hits), "low": low, "high": high}
        rates = {measure: float(np.mean(theirs[group, label][measure])) for measure in theirs[group, label]}
        table.append(row_ | {measure: rates.get(measure, math.nan) for measure in most})
    return table


def _keys(item: Item) -> Iterable[tuple[str, str]]:
    """What a model counts for: its own kind, and all of its group."""
    if item.truth.kin:
        yield item.group, "all with weights of the base"
    yield item.group, item.label


def false_alarms(scores: Rows, items: Mapping[str, Item], halves: Halves, most: Mapping[str, float]) -> Table:
    """What each published measure does on the reported half: unrelated pairs taken for kin, and what it cannot say."""
    table: Table = []
    for measure, level in most.items():
        rows = [row for row in scores if row["measure"] == measure]
        reported = [row for row in rows if measure in TOOLS or halves.reports(row, items[row["suspect"]].base)]
        others = [float(row["value"]) for row in reported if row["relation"] in ("sibling", "unrelated")]
        kin = [float(row["value"]) for row in reported if row["relation"] == "kin"]
        table.append(
            {
                "measure": measure,
                "threshold": level,
                "unrelated": len(others),
                "taken_for_kin": sum(value > level for value in others),
                "kin": len(kin),
                "found": sum(value > level for value in kin),
                "auroc": _auroc(kin, others),
                "pauc_1%": _partial_auroc(kin, others, _FALSE),
                "above_all": sum(value > max(others, default=math.inf) for value in kin),
                "median_siblings": _median(float(r["value"]) for r in rows if r["relation"] == "sibling"),
                "seconds": _median(float(row["seconds"]) for row in rows),
            }
        )
    return table


def _auroc(kin: Sequence[float], others: Sequence[float]) -> float:
    """The chance that kin score higher than others; what has no score counts as the lowest."""
    if not kin or not others:
        return math.nan
    a, b = (np.nan_to_num(np.array(values), nan=-1e300, posinf=1e300) for values in (kin, others))
    return float(stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)))


def _partial_auroc(kin: Sequence[float], others: Sequence[float], most: float) -> float:
    """The mean share of kin found, over thresholds that up to ``most`` of the others exceed; ties count half."""
    if not kin or not others:
        return math.nan
    a, b = (np.nan_to_num(np.array(values), nan=-1e300, posinf=1e300) for values in (kin, others))
    top, room = np.sort(b)[::-1], most * len(b)
    width = np.diff(np.minimum(np.arange(len(b) + 1), room))
    found = [(a > level).mean() + (a == level).mean() / 2 for level in top]
    return float(width @ np.array(found) / room)


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan


def kinds(pairs: Rows, items: Mapping[str, Item]) -> Table:
    """F1 of every type named on derivations and where noise was added, and of every disguise named on attacks."""
    table: Table = []
    for counts, column, known in (
        (_changes_weights, "types", lambda item: item.truth.types),
        (lambda item: item.group == "attack", "disguises", lambda item: item.truth.disguises),
    ):
        rows = [row for row in pairs if row["relation"] == "kin" and counts(items[row["suspect"]])]
        said = [(set(json.loads(row[column] or "[]")), set(known(items[row["suspect"]]))) for row in rows]
        for name in sorted({each for _, true in said for each in true}):
            right = sum(name in mine and name in true for mine, true in said)
            named, due = sum(name in mine for mine, _ in said), sum(name in true for _, true in said)
            f1 = 2 * right / (named + due)
            table.append({"what": column, "name": name, "due": due, "named": named, "right": right, "f1": round(f1, 4)})
    return table


def _changes_weights(item: Item) -> bool:
    """Whether a type is due that says what was done to weights: of attacks, to those that added noise."""
    return item.group == "derivation" or "noise added" in item.truth.types


def fractions(pairs: Rows, items: Mapping[str, Item]) -> Table:
    """Single figures: macro F1, parents, blocks, direction."""
    rows = [row for row in pairs if row["relation"] == "kin" and items[row["suspect"]].truth.kin]
    convicted = [row for row in rows if row["verdict"] in _CONVICTED]
    first = [_is_first(row, pairs) for row in convicted]
    blocks = [each for row in convicted if items[row["suspect"]].group == "derivation" for each in _blocks(row, items)]
    forward = [float(row["p_seed"] or 1) <= ALPHA for row in rows]
    backward = [float(row["p_reverse_seed"] or 1) <= ALPHA for row in rows]
    told = {
        "kin found": [row in convicted for row in rows],
        "parent named first": [each for each in first if each is not None],
        "block of the reference right": blocks,
        "direction shown by the seed": forward,
        "wrong direction shown by the seed": backward,
    }
    table: Table = []
    for name, values in told.items():
        low, high = interval(sum(values), len(values))
        table.append({"what": name, "n": len(values), "k": sum(values), "low": low, "high": high})
    named = kinds(pairs, items)
    for column in ("types", "disguises"):
        scores = [row["f1"] for row in named if row["what"] == column]
        value = float(np.mean(scores)) if scores else math.nan
        table.append({"what": f"macro F1 of {column}", "n": len(scores), "k": round(value, 4), "low": "", "high": ""})
    errors = defaultdict(list)
    for row in rows:
        if row.get("merge_error"):
            errors[items[row["suspect"]].label].append(float(row["merge_error"]))
    for label, values in errors.items():
        spread = {"low": min(values), "high": max(values)}
        table.append(
            {"what": f"error of weights, {label}", "n": len(values), "k": round(float(np.mean(values)), 4)} | spread
        )
    return table


def _is_first(row: Mapping[str, str], pairs: Rows) -> bool | None:
    """Whether no other base that the suspect was held against agrees with it better; None: there is none."""

    def strength(each: Mapping[str, str]) -> float:
        return max(float(each[name] or -math.inf) for name in ("z_order_ff", "z_order_values", "z_seed"))

    others = [each for each in pairs if each["suspect"] == row["suspect"] and each["relation"] == "unrelated"]
    return all(strength(row) > strength(each) for each in others) if others else None


def _blocks(row: Mapping[str, str], items: Mapping[str, Item]) -> list[bool]:
    """Whether each block was held against the right one of the reference."""
    truth = items[row["suspect"]].truth
    if not row["layer_map"] or "partial" in truth.types:
        return []
    said = json.loads(row["layer_map"])
    true = truth.layer_map or tuple(range(len(said)))
    return [mine == right for mine, right in zip(said, true, strict=True)]


def lengths(pairs: Rows, items: Mapping[str, Item]) -> Table:
    """The tests of the seed and of the order of data against how long a model was trained, in trainings of a base.

    ``what``: a ``base`` held against its own record; or one trained further, on the ``same`` data or on ``new``.
    """
    table: Table = []
    for row in pairs:
        item = items[row["suspect"]]
        if row["relation"] == "self":
            what, length = "base", item.values.get("length", 1.0)
        elif row["relation"] == "kin" and item.group == "derivation" and item.label.startswith("continued"):
            what, length = item.label.removeprefix("continued, ").split()[0], 1 + item.values["length"]
        else:
            continue
        tests = ("z_seed", "p_seed", "z_data_order", "p_data_order")
        table.append({"what": what, "length": length, "base": item.base} | {name: _number(row[name]) for name in tests})
    return sorted(table, key=lambda each: (each["what"], each["length"], each["base"]))


def _number(text: str) -> float:
    return float(text) if text else math.nan


def prices(pairs: Rows, scores: Rows) -> Table:
    """Seconds and memory a pair."""
    table: Table = []

    def add(name: str, rows: Rows, column: Callable[[Mapping[str, str]], float]) -> None:
        values = [column(row) for row in rows]
        if values:
            middle, most = np.quantile(values, (0.5, 0.95))
            table.append({"what": name, "n": len(values), "median": round(middle, 3), "p95": round(most, 3)})

    for called, name in (("all", "the whole audit, seconds"), ("exact", "its exact tests, seconds")):
        add(name, [row for row in pairs if row["called"] == called], lambda row: float(row["seconds"]))
    add("peak memory of an audit, MiB", [row for row in pairs if row["called"]], lambda row: float(row["peak_mib"]))
    for measure in dict.fromkeys(row["measure"] for row in scores):
        rows = [row for row in scores if row["measure"] == measure]
        add(f"{measure}, seconds", rows, lambda row: float(row["seconds"]))
    return table
