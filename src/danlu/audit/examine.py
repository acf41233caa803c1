"""The whole audit of a suspect against a reference: every test that can be made, and what they amount to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from danlu.audit.aligned import Alignment, align, pairs_of, place
from danlu.audit.behaviour import Behaviour, taught
from danlu.audit.changes import Changes, read_changes
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.clones import Clones, count_clones
from danlu.audit.content import Content, compare_content
from danlu.audit.context import Likeness, compare_context
from danlu.audit.identity import IdentityTest, identity_test
from danlu.audit.merging import Merge, decompose
from danlu.audit.power import Power, power_of
from danlu.audit.resemblance import Resemblance
from danlu.audit.seed_origin import SeedTest, seed_test
from danlu.audit.siblings import SiblingTest, rank_test
from danlu.audit.types import name_types
from danlu.audit.undone import undone
from danlu.audit.unit_order import OrderTest, order_test
from danlu.audit.units import COMPONENTS, Block, Component, DrawnUnits, blocks_of
from danlu.audit.verdict import ALPHA, Calibrated, Verdict, decide
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.model.base import Model

__all__ = ["Findings", "Question", "examine"]

_LEAD = 0.1
"""Share of units by which a suspect must be ahead of all controls when clones are counted."""
_MOSTLY = 0.5
"""Share of a part's numbers from which on it counts as the reference's."""

_ALIKE = 0.5
"""Correlation of norm gains from which on two models look alike."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        suspect: The model that may be derived.
        reference: The model that it may be derived from.
        controls: Models known to have nothing to do with the reference.
        siblings: Models of the reference's recipe and data, of other seeds.
        parents: Models that the suspect may have been merged from, besides the reference.
        start: The reference's module and the seeds that its record committed to; None: they are not at hand.
        seed: The word or number that the reference's run was told as its seed; None: it drew one, or nobody knows.
        alpha: Level of the family of exact tests.
        behaviour: What came of the tests by behaviour; None: none was asked for.
    """

    suspect: Path
    reference: Path
    controls: tuple[Path, ...] = ()
    siblings: tuple[Path, ...] = ()
    parents: tuple[Path, ...] = ()
    start: tuple[Model, Seeds] | None = None
    seed: str | None = None
    alpha: float = ALPHA
    behaviour: Behaviour | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What came of it.

    Attributes:
        verdict: See :data:`danlu.audit.verdict.Verdict`.
        types: What was done, where kinship is shown: ``trained further``, ``depth changed``, ...
        parts: Where only a part of it is the reference's, which.
        disguises: What was done that no training does: ``rotated``, ``reordered``, ``rescaled``, ``heads turned``.
        p: Exact test -> p-value corrected for their number.
        order: Component -> the test of the order of its units, or why it could not be made.
        control_order: Component -> z of the same test for every control and sibling that it could be made for.
        identity: The test of matrices that are the same to the last bit, or why it could not be made.
        seed: The test of the seed, or why it could not be made.
        sibling: The test against siblings, or why it could not be made.
        clones: How far two ways to match units agree; None: there are no units to match.
        control_clones: The same for every control and sibling.
        content: What is the same to the last bit.
        likeness: What proves nothing,
        control_likeness: and the same for every control and sibling.
        changes: What was done to the matrices, where they can be held against each other.
        merge: Of which models it was merged, or why that could not be found; None: no parents were given.
        power: What the tests could have seen.
        behaviour: What came of the tests by behaviour; None: none was asked for.
    """

    verdict: Verdict
    types: tuple[str, ...]
    parts: tuple[str, ...]
    disguises: tuple[str, ...]
    p: Mapping[str, float]
    order: Mapping[Component, OrderTest | str]
    control_order: Mapping[Component, tuple[float, ...]]
    identity: IdentityTest | str
    seed: SeedTest | str
    sibling: SiblingTest | str
    clones: Clones | None
    control_clones: tuple[float, ...]
    content: Content
    likeness: Likeness
    control_likeness: tuple[Likeness, ...]
    changes: Changes | None
    merge: Merge | str | None = None
    power: Mapping[Component, Power] = field(default_factory=dict)
    behaviour: Behaviour | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What was done to a suspect; see :class:`Findings`."""

    types: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    disguises: tuple[str, ...] = ()
    changes: Changes | None = None
    merge: Merge | str | None = None


def examine(question: Question, progress: Progress) -> Findings:
    """Make every test that can be made.

    Raises:
        UsageError: A folder holds no model that danlu can read.
        CorruptError: A file is damaged.
    """
    with contextlib.ExitStack() as stack:
        suspect, reference = (stack.enter_context(Checkpoint(path)) for path in (question.suspect, question.reference))
        groups = (question.controls, question.siblings)
        controls, siblings = ([stack.enter_context(Checkpoint(path)) for path in paths] for paths in groups)
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
        identity = identity_test(suspect, reference, content)
        seed = _seed(suspect, reference, question)
        sibling = _sibling(suspect, reference, siblings)
        shares = tuple(each.share for each in control_clones if each is not None)
        exact = _p_values(order, identity, seed, sibling)
        calibrated = {} if clones is None else {"clones": Calibrated(value=clones.share, controls=shares, lead=_LEAD)}
        compared = bool(exact.keys() - {"content"})  # bits that differ do not speak against copied weights
        behaviour = question.behaviour
        if behaviour is not None:
            exact |= behaviour.exact
            calibrated |= behaviour.calibrated
        likeness = compare_context(suspect, reference)
        control_likeness = tuple(compare_context(each, reference) for each in unrelated)
        alike = content.rounded_share > 0 or _gains_alike(likeness, control_likeness)
        verdict, corrected = decide(exact, calibrated, alike, question.alpha, question.seed is not None)
        kin = verdict in ("PROVEN", "STRONG")  # of two that share a start alone, nothing was done to either
        done = _what_was_done(suspect, reference, order, content, question) if kin else _Done()
        if kin and compared and behaviour and taught(behaviour, corrected, calibrated, question.alpha):
            done = _Done(types=("distilled",))
        progress.stage("audit: what the tests could have seen")
        return Findings(
            verdict=verdict,
            **vars(done),
            p=corrected,
            order=order,
            control_order={component: _z_of(unrelated, ours, component) for component in COMPONENTS},
            identity=identity,
            seed=seed,
            sibling=sibling,
            clones=clones,
            control_clones=shares,
            content=content,
            likeness=likeness,
            control_likeness=control_likeness,
            power=power_of(ours, order, question.alpha / max(1, len(exact))),
            behaviour=behaviour,
        )


def _gains_alike(likeness: Likeness, unrelated: Sequence[Likeness]) -> bool:
    """Whether norm gains are alike; where unrelated models are at hand, far more alike than theirs."""
    value = likeness.gain_correlation
    others = tuple(each.gain_correlation for each in unrelated if each.gain_correlation is not None)
    if value is None or value <= _ALIKE:
        return False
    return len(others) < 2 or Calibrated(value=value, controls=others).beyond


def _p_values(
    order: Mapping[Component, OrderTest | str],
    identity: IdentityTest | str,
    seed: SeedTest | str,
    sibling: SiblingTest | str,
) -> dict[str, float]:
    """Those of the exact tests of weights that could be made."""
    exact = {f"order of {component}": test.p for component, test in order.items() if isinstance(test, OrderTest)}
    exact |= {"content": identity.p} if isinstance(identity, IdentityTest) else {}
    exact |= {"seed": seed.p} if isinstance(seed, SeedTest) else {}
    exact |= {"siblings": sibling.p} if isinstance(sibling, SiblingTest) else {}
    return exact


def _z_of(models: Sequence[Checkpoint], reference: DrawnUnits, component: Component) -> tuple[float, ...]:
    """How far models known to be unrelated are from chance; few orders will do."""
    tests = (order_test(each, reference, component, n_orders=99) for each in models)
    return tuple(test.z for test in tests if isinstance(test, OrderTest))


def _clones(suspect: Checkpoint, reference: Checkpoint, order: Mapping[Component, OrderTest | str]) -> Clones | None:
    """By the blocks and in the basis of a clear test of order, else of those units that are most alike."""
    theirs, ours = (blocks_of(each, "feed-forward") for each in (suspect, reference))
    if not theirs or not ours:
        return None
    found = place(suspect, reference, order)
    if found.rotation is None and suspect.shape(theirs[0].down)[0] != reference.shape(ours[0].down)[0]:
        return None
    numbers = {block: number for number, block in enumerate(ours)}
    first = {block.layer: number for number, block in reversed(list(enumerate(ours)))}
    origins = [(found.layer_map[block.layer], block.owner) for block in theirs]
    layer_map = tuple(numbers.get(Block(*origin), first.get(origin[0], 0)) for origin in origins)
    return count_clones(suspect, reference, layer_map, found.rotation)


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


def _what_was_done(
    suspect: Checkpoint,
    reference: Checkpoint,
    order: Mapping[Component, OrderTest | str],
    content: Content,
    question: Question,
) -> _Done:
    found = align(suspect, reference, order)
    seen: set[str] = set()
    changes = read_changes(undone(pairs_of(suspect, reference, found), suspect, reference, found, seen))
    merge = _merge(suspect, reference, found, question)
    types = name_types(suspect, reference, found, content, changes, merge)
    parts = tuple(part for part, share in changes.parts.items() if share > _MOSTLY) if "partial" in types else ()
    return _Done(
        types=types,
        parts=parts,
        disguises=(*found.disguises, *sorted(seen - {*found.disguises})),
        changes=changes,
        merge=merge,
    )


def _merge(suspect: Checkpoint, reference: Checkpoint, found: Alignment, question: Question) -> Merge | str | None:
    """Of which of the models that were named it was merged; only those that are kin to it or the reference."""
    if not question.parents:
        return None
    with contextlib.ExitStack() as stack:
        parents = {question.reference.name: reference}
        theirs, ours = DrawnUnits(suspect), DrawnUnits(reference)
        for path in question.parents:
            parent = stack.enter_context(Checkpoint(path))
            tests = [order_test(each, parent, component) for each in (theirs, ours) for component in COMPONENTS]
            # One that is taken in by chance explains nothing and gets no weight, so nothing is corrected for.
            if any(isinstance(test, OrderTest) and test.p <= question.alpha for test in tests):
                parents[path.name] = parent
        if len(parents) < 2:
            return "no other model that was named is shown to be kin by the order of its units"
        names = [set(each.names) for each in parents.values()]
        if any(each != names[0] for each in names):
            return "the possible parents are not of one architecture"
        beside = (pairs_of(suspect, each, found) for each in parents.values())
        return decompose(zip(*beside, strict=False), tuple(parents))
