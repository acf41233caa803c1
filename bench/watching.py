"""Do alarms and decisions keep to their stated rates when looked at for ever, and how soon do they come?

    OMP_NUM_THREADS=1 python bench/watching.py [drift] [records] [compare] [counts] [--scale 1.0]

drift: sequences of windows, eight signals each, whose effects are drawn from one distribution (nothing changes), or
    from one that moves by so many of its standard deviations in one of the signals, from the first live window on or
    from the 201st. Told: the share of sequences with any alarm where nothing changes; the share in which the drift was
    found within 200 windows, and windows until then.
records: the whole path from records to alarms: lengths (KS), classes (PSI), confidence (KS) and embeddings (MMD) of
    made-up requests in windows of 50, with a reference of 3,600 records; the signals depend on each other.
compare: live comparisons looked at after every user: false promotions where there is no difference, and decisions and
    users until then for planted differences.
counts: sample ratio and paired wins, looked at after every one.

Intervals are Wilson's 95%. --scale makes everything so many times as large.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from danlu.evaluate.intervals import wilson
from danlu.evaluate.metrics import Floats
from danlu.improve.compare import DECISIONS, ComparisonPlan, first_decisions, live_numbers
from danlu.improve.evidence import log_evidence_of_ratio, log_evidence_of_wins
from danlu.monitor.drift import bandwidth_of, ks_distance, mmd_distance, one_hot, psi_distance
from danlu.monitor.shift import observed_shift
from danlu.monitor.watch import RankEvidence, Watch, reference_windows

LEVEL = 0.05
N_SIGNALS = 8


def share(hits: int, n: int) -> str:
    """A share with its interval."""
    low, high = wilson(hits, n, 0.95)
    return f"{hits}/{n} = {hits / n:.4f} ({low:.4f} to {high:.4f})"


def when(at: Floats) -> str:
    """The middle and the late part of times."""
    if not len(at):
        return "-"
    return "median {:.0f}, nine in ten by {:.0f}".format(*np.quantile(at, [0.5, 0.9]))


def first_alarms(n_windows: int, n_sequences: int, n_reference: int, start: int, moved: float, seed: int) -> Floats:
    """The window (from 1) of the first alarm of each sequence; infinite where there is none.

    With Holm's correction the first alarm among signals is where the first p-value falls under level / signals.
    """
    rng = np.random.default_rng(seed)
    n_columns = n_sequences * N_SIGNALS
    evidence = RankEvidence(rng.gamma(4.0, size=(n_reference, n_columns)), rng)
    at = np.full(n_sequences, np.inf)
    for window in range(1, n_windows + 1):
        effect = rng.gamma(4.0, size=(n_sequences, N_SIGNALS))
        if window > start:
            effect[:, 0] += 2.0 * moved  # the standard deviation of gamma(4) is 2
        evidence.observe(effect.ravel())
        highest = evidence.highest_J.reshape(n_sequences, N_SIGNALS).max(1)
        at[(highest >= np.log(N_SIGNALS / LEVEL)) & np.isinf(at)] = window
    return at


def drift(scale: float) -> None:
    n = round(1000 * scale)
    print(f"drift: {N_SIGNALS} signals, level {LEVEL}")
    for n_reference in (20, 100):
        at = first_alarms(400, n, n_reference, 0, 0.0, 1)
        print(
            f"  nothing changes, {n_reference} reference windows, 400 live ones: ever {share(np.isfinite(at).sum(), n)}"
        )
    few = round(150 * scale)
    for n_reference in (20, 50, 100):
        for start in (0, 200):
            for moved in (0.5, 1.0, 2.0, 4.0):
                at = first_alarms(start + 200, few, n_reference, start, moved, 2)
                found = (at > start) & np.isfinite(at)
                print(
                    f"  {n_reference} reference windows, from live window {start + 1}, by {moved} sd: "
                    f"found {share(found.sum(), few)}; after {when(at[found] - start)}"
                )


def requests(n: int, kind: str, rng: np.random.Generator) -> dict[str, Floats]:
    """Made-up requests: hard ones are longer, less sure, and lie elsewhere."""
    hard = rng.random(n) < (0.5 if kind == "harder" else 0.2)
    length = np.floor(rng.lognormal(3.5 + 0.4 * hard + (0.3 if kind == "longer" else 0.0), 0.6))
    vector = rng.normal(size=(n, 16)) + hard[:, None] * 0.5
    if kind == "moved":
        vector[:, :4] += 0.6
    confidence = np.where(hard, rng.beta(4, 3, n), rng.beta(12, 1.5, n))
    classes = (rng.random(n) < np.where(hard, 0.4, 0.6) - (0.25 if kind == "classes" else 0)).astype(float)
    return {"length": length, "class": classes, "confidence": confidence, "embedding": vector}


def effects_of(base: dict[str, Floats], width: float) -> Callable[[dict[str, Floats]], dict[str, float]]:
    n = len(base["length"])

    def effects(window: dict[str, Floats]) -> dict[str, float]:
        both = {name: np.concatenate([base[name], window[name]]) for name in base}
        distances = {
            "length": ks_distance(both["length"]),
            "class": psi_distance(one_hot(both["class"].astype(np.int64), 2)),
            "confidence": ks_distance(both["confidence"]),
            "embedding": mmd_distance(both["embedding"], width),
        }
        return {name: observed_shift(distance, n, len(window["length"])) for name, distance in distances.items()}

    return effects


def records(scale: float) -> None:
    print("records: 3,600 reference records, windows of 50, 4 signals that depend on each other, level 0.05")
    minimum = dict.fromkeys(("length", "class", "confidence", "embedding"), 0.0)  # significance alone
    for kind, n_sequences, n_windows in (
        ("none", 100, 40),
        ("longer", 15, 40),
        ("classes", 15, 40),
        ("harder", 15, 40),
        ("moved", 15, 40),
    ):
        n_sequences, found, at = round(n_sequences * scale), dict.fromkeys(minimum, 0), []
        for seed in range(n_sequences):
            rng = np.random.default_rng([7, seed])
            reference = requests(3600, "none", rng)
            base, windows = reference_windows(3600, 50, rng)
            chosen = base[:250]
            width = bandwidth_of(reference["embedding"][chosen])
            effects = effects_of({name: value[chosen] for name, value in reference.items()}, width)
            usual = [effects({name: value[w] for name, value in reference.items()}) for w in windows]
            watch = Watch({name: [u[name] for u in usual] for name in minimum}, minimum, LEVEL, rng)
            alarmed: dict[str, int] = {}
            for window in range(1, n_windows + 1):
                for state in watch.observe(effects(requests(50, kind, rng))):
                    if state.alarm:
                        alarmed.setdefault(state.name, window)
            for name in alarmed:
                found[name] += 1
            at += [min(alarmed.values())] if alarmed else []
        print(f"  {kind}: any alarm {share(len(at), n_sequences)}; first after {when(np.array(at))}; signals {found}")


def compare(scale: float) -> None:
    for part, budget in ((0.5, 2000), (0.1, 2000)):
        plan = ComparisonPlan(margin=0.05, budget=budget, level=LEVEL, share=part)
        print(f"compare: champion 0.8 right, share {part}, budget {budget}, margin {plan.margin}, level {LEVEL}")
        for difference, n in ((0.0, 2000 if part == 0.5 else 500), (0.03, 200), (0.05, 200), (0.1, 200), (-0.05, 200)):
            n = round(n * scale)
            rng = np.random.default_rng(3)
            code, at = [], []
            for start in range(0, n, 100):
                challenger = rng.random((min(100, n - start), budget)) < part
                outcome = (rng.random(challenger.shape) < 0.8 + difference * challenger).astype(np.float64)
                found = first_decisions(live_numbers(challenger, outcome, part), plan)
                code.append(found[0])
                at.append(found[1])
            codes, times = np.concatenate(code), np.concatenate(at)
            told = ", ".join(f"{DECISIONS[k]} {share((codes == k).sum(), n)}" for k in (1, 2, 3) if (codes == k).any())
            print(f"  difference {difference:+.2f}: {told or 'none decided'}; decided after {when(times[codes > 0])}")
    plan = ComparisonPlan(margin=0.05, budget=6000, level=LEVEL)
    for difference in (0.0, 0.05):
        n = round(150 * scale)
        rng = np.random.default_rng(4)
        challenger = rng.random((n, 6000)) < 0.5
        outcome = (rng.random(challenger.shape) < 0.8 + difference * challenger).astype(np.float64)
        codes, times = first_decisions(live_numbers(challenger, outcome, 0.5), plan)
        told = ", ".join(f"{DECISIONS[k]} {share((codes == k).sum(), n)}" for k in (1, 2, 3) if (codes == k).any())
        print(f"  budget 6000, difference {difference:+.2f}: {told}; after {when(times[codes > 0])}")


def counts(scale: float) -> None:
    n, length = round(1000 * scale), 3000
    print(f"counts: looked at after each of {length}, level {LEVEL}")
    for chance in (0.5, 0.52, 0.55, 0.6):
        rng = np.random.default_rng(5)
        ratio_at, wins_at = [], []
        for start in range(0, n, 100):
            first = np.cumsum(rng.random((min(100, n - start), length)) < chance, axis=1)
            rest = np.arange(1, length + 1) - first
            for log_e, at in (
                (log_evidence_of_ratio(np.stack([first, rest], -1), [0.5, 0.5]), ratio_at),
                (log_evidence_of_wins(first, rest), wins_at),
            ):
                beyond = log_e >= -np.log(LEVEL)
                at += list(np.where(beyond.any(1), beyond.argmax(1) + 1, np.inf))
        for name, at in (("sample ratio", np.array(ratio_at)), ("paired wins", np.array(wins_at))):
            hit = np.isfinite(at)
            print(f"  {name}, chance {chance}: {share(hit.sum(), n)}; after {when(at[hit])}")


PARTS = {"drift": drift, "records": records, "compare": compare, "counts": counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        start = time.monotonic()
        PARTS[name](arguments.scale)
        print(f"  ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
