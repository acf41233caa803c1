"""The whole audit of a suspect against a reference: every test that can be made, and what they amount to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from danlu.audit.alignment import from_tokens
from danlu.audit.behaviour import Behaviour, taught
from danlu.audit.changes import Changes, read_changes
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.clones import Clones, count_clones
from danlu.audit.content import Content, compare_content
from danlu.audit.context import Likeness, compare_context
from danlu.audit.power import Power, power_of
from danlu.audit.resemblance import Resemblance
from danlu.audit.seed_origin import SeedTest, seed_test
from danlu.audit.siblings import SiblingTest, rank_test
from danlu.audit.types import name_types
from danlu.audit.unit_order import OrderTest, order_test
from danlu.audit.units import COMPONENTS, Component, DrawnUnits
from danlu.audit.verdict import ALPHA, Calibrated, Verdict, decide
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.model.base import Model

__all__ = ["Findings", "Question", "examine"]

_ALIKE = 0.5
"""Correlation of norm gains, or share of bits in common, from which on two models look alike."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        suspect: The model that may be derived.
        reference: The model that it may be derived from.
        controls: Models known to have nothing to do with the reference.
        siblings: Models of the reference's recipe and data, of other seeds.
        start: The reference's module and the seeds that its record committed to; None: they are not at hand.
        seed: The word or number that the reference's run was told as its seed; None: it drew one, or nobody knows.
        alpha: Level of the family of exact tests.
        behaviour: What came of the tests by behaviour; None: none was asked for.
    """

    suspect: Path
    reference: Path
    controls: tuple[Path, ...] = ()
    siblings: tuple[Path, ...] = ()
    start: tuple[Model, Seeds] | None = None
    seed: str | None = None
    alpha: float = ALPHA
    behaviour: Behaviour | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What came of it.

    Attributes:
        verdict: See :data:`danlu.audit.verdict.Verdict`.
        types: What was done, where kinship is shown: ``fine-tuned``, ``depth changed``, ...
        disguises: What was done that no training does: ``rotated``, ``reordered``, ``rescaled``.
        p: Exact test -> p-value corrected for their number.
        order: Component -> the test of the order of its units, or why it could not be made.
        control_order: Component -> z of the same test for every control and sibling that it could be made for.
        seed: The test of the seed, or why it could not be made.
        sibling: The test against siblings, or why it could not be made.
        clones: How far two ways to match units agree; None: there are no units to match.
        control_clones: The same for every control and sibling.
        content: What is the same to the last bit.
        likeness: What proves nothing,
        control_likeness: and the same for every control and sibling.
        changes: What was done to the matrices, where they can be held against each other.
        power: What the tests could have seen.
        behaviour: What came of the tests by behaviour; None: none was asked for.
    """

    verdict: Verdict
    types: tuple[str, ...]
    disguises: tuple[str, ...]
    p: Mapping[str, float]
    order: Mapping[Component, OrderTest | str]
    control_order: Mapping[Component, tuple[float, ...]]
    seed: SeedTest | str
    sibling: SiblingTest | str
    clones: Clones | None
    control_clones: tuple[float, ...]
    content: Content
    likeness: Likeness
    control_likeness: tuple[Likeness, ...]
    changes: Changes | None
    power: Mapping[Component, Power] = field(default_factory=dict)
    behaviour: Behaviour | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def examine(question: Question, progress: Progress) -> Findings:
    """Make every test that can be made.

    Raises:
        UsageError: A folder holds no model that danlu can read.
        CorruptError: A file is damaged.
    """
    with contextlib.ExitStack() as stack:
        suspect, reference = (stack.enter_context(Checkpoint(path)) for path in (question.suspect, question.reference))
        controls = [stack.enter_context(Checkpoint(path)) for path in question.controls]
        siblings = [stack.enter_context(Checkpoint(path)) for path in question.siblings]
        progress.stage("audit: what is the same to the last bit")
        content = compare_content(suspect, reference)
        progress.stage("audit: the order of units")
        theirs, ours = DrawnUnits(suspect), DrawnUnits(reference)
        order = {component: order_test(theirs, ours, component) for component in COMPONENTS}
        progress.stage("audit: units that changed places")
        clones = _clones(suspect, reference, order)
        unrelated = [*controls, *siblings]
        control_clones = [_clones(each, reference, {}) for each in unrelated]
        progress.stage("audit: the random start, and siblings")
        seed = _seed(suspect, reference, question)
        sibling = _sibling(suspect, reference, siblings)
        exact = {f"order of {component}": test.p for component, test in order.items() if isinstance(test, OrderTest)}
        exact |= {"seed": seed.p} if isinstance(seed, SeedTest) else {}
        exact |= {"siblings": sibling.p} if isinstance(sibling, SiblingTest) else {}
        shares = tuple(each.share for each in control_clones if each is not None)
        calibrated = {} if clones is None else {"clones": Calibrated(value=clones.share, controls=shares)}
        if question.behaviour is not None:
            exact |= question.behaviour.exact
            calibrated |= question.behaviour.calibrated
        likeness = compare_context(suspect, reference)
        alike = content.rounded_share > 0 or (likeness.gain_correlation or 0.0) > _ALIKE
        verdict, corrected = decide(exact, calibrated, alike, question.alpha, question.seed is not None)
        kin = verdict in ("PROVEN", "STRONG")  # of two that share a start alone, nothing was done to either
        changes = _changes(suspect, reference, order) if kin else None
        types, disguises = name_types(suspect, reference, order, clones, content, changes) if kin else ((), ())
        if kin and question.behaviour and taught(question.behaviour, corrected, calibrated, question.alpha):
            types, disguises = ("distilled",), ()
        progress.stage("audit: what the tests could have seen")
        return Findings(
            verdict=verdict,
            types=types,
            disguises=disguises,
            p=corrected,
            order=order,
            control_order={component: _z_of(unrelated, ours, component) for component in COMPONENTS},
            seed=seed,
            sibling=sibling,
            clones=clones,
            control_clones=shares,
            content=content,
            likeness=likeness,
            control_likeness=tuple(compare_context(each, reference) for each in unrelated),
            changes=changes,
            power=power_of(ours, order, question.alpha / max(1, len(exact))),
            behaviour=question.behaviour,
        )


def _z_of(models: Sequence[Checkpoint], reference: DrawnUnits, component: Component) -> tuple[float, ...]:
    """How far models known to be unrelated are from chance; few orders will do."""
    tests = (order_test(each, reference, component, n_orders=99) for each in models)
    return tuple(test.z for test in tests if isinstance(test, OrderTest))


def _clones(suspect: Checkpoint, reference: Checkpoint, order: Mapping[Component, OrderTest | str]) -> Clones | None:
    """By the blocks and in the basis of the test of order, or block by block in whichever basis shows more."""
    if not suspect.n_blocks or not reference.n_blocks or "blocks.0.feedforward.down.weight" not in suspect:
        return None
    test = order.get("feed-forward")
    blocks = tuple(min(block, reference.n_blocks - 1) for block in range(suspect.n_blocks))
    layer_map = test.layer_map if isinstance(test, OrderTest) else blocks
    widths = [each.shape("blocks.0.feedforward.down.weight")[0] for each in (suspect, reference)]
    bases: list[torch.Tensor | None] = [None] if widths[0] == widths[1] else []
    rotation = from_tokens(suspect, reference)
    bases += [] if rotation is None else [rotation]
    found = [count_clones(suspect, reference, layer_map, basis) for basis in bases]
    return max(found, key=lambda each: each.share, default=None)


def _seed(suspect: Checkpoint, reference: Checkpoint, question: Question) -> SeedTest | str:
    if question.start is None:
        return "the seeds of the reference's run are not at hand"
    module, seeds = question.start
    drawn = getattr(module.config, "embedding_from", "random") == "random"
    return seed_test(suspect, module, seeds, reference, drawn)


def _sibling(suspect: Checkpoint, reference: Checkpoint, siblings: Sequence[Checkpoint]) -> SiblingTest | str:
    if not siblings:
        return "no siblings of the reference are at hand"
    measure = Resemblance(suspect, reference)
    if not measure.bases:
        return "the two have sequences of different width and no tokens by which to compare them"
    return rank_test(measure(reference), [measure(each) for each in siblings], "units found again")


def _changes(suspect: Checkpoint, reference: Checkpoint, order: Mapping[Component, OrderTest | str]) -> Changes | None:
    """What was done to matrices that have a counterpart; None: they are in another basis."""
    test = order.get("feed-forward")
    if not isinstance(test, OrderTest) or test.basis != "same":
        return None
    pairs = []
    for name in suspect.names:
        ours = _counterpart(name, test.layer_map)
        if ours in reference and len(reference.shape(ours)) == 2 and suspect.shape(name) == reference.shape(ours):
            pairs.append((name, ours))
    return read_changes(suspect, reference, pairs) if pairs else None


def _counterpart(name: str, layer_map: Sequence[int]) -> str:
    head, _, rest = name.partition(".")
    number, _, tail = rest.partition(".")
    return f"blocks.{layer_map[int(number)]}.{tail}" if head == "blocks" and number.isdigit() else name
