"""What of the feedback may be learnt from: every record that is not used gets a reason, and stays to be looked at.

In this order; each step sees what those before it have left:

1. **quarantine**: a record is used once it is known what it is about (a request at hand, or a text or picture that came
   along), it gives an answer, the answer is one of the classes, and all of it is text; then it is cleaned as the
   training records were.
2. **contradiction**: a user whom far more others contradict than chance would have it (:mod:`contradiction`) is not
   believed in anything, and knocks out no answer of anybody else.
3. **conflicts**: one text, several answers: labellers decide where there are any, otherwise most distinct sources; a
   tie drops all. A source counts once a text. Of records that agree one is used.
4. **held out**: a fixed share of the texts that labellers labelled, by the hash of the text, is the gold set.
5. **leaks**: what is the same as, or nearly, a text of the validation, test or gold set.
6. **training data**: what they say already is nothing new; a labeller's other label takes the place of theirs, anybody
   else's is dropped.
7. **arms**: what was gathered under an experiment's challenger is used for as many records as its champion brought too:
   never alone.
8. **quotas**: no user may make up more than a share of all that is used, nor more than a number. Who labels for the
   model's owner, and what its owner imports, has no quota.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danlu.data.clean import CleanConfig
from danlu.data.leak import find_leaks
from danlu.data.records import Records
from danlu.improve.contradiction import contradicted
from danlu.improve.feedback import answer_to, input_of, joined, writable

__all__ = [
    "Known",
    "balance_arms",
    "drop_contradicted",
    "drop_learnt",
    "hold_out",
    "keep_apart",
    "limit_sources",
    "row_of",
    "rows_of",
    "settle_conflicts",
]

RANKS = {"labeller": 2, "import": 1, "user": 1}
"""Who outranks whom where answers differ."""

_Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Known:
    """Records that are there already.

    Attributes:
        digests: SHA-256 of the key of each text, or of the pixels of each picture.
        answers: The label of each; for a translation the key of its target.
        contents: The texts themselves; None for pictures, of which only the same ones are found.
        names: Where each is: ``test``, ``gold``, ...
    """

    digests: Sequence[bytes]
    answers: Sequence[str]
    contents: pa.Array | None
    names: Sequence[str]


def rows_of(records: Iterable[Mapping[str, Any]], task: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Feedback as rows of a source, those that are in quarantine with their problem.

    Args:
        records: Feedback events that count, each with ``asked``: the event of its request, or None.
        task: What the model does.
        classes: Its classes, where it has any.

    Returns:
        ``source`` (``feedback/ID``), ``content``, ``answer``, ``problem``, ``kind``, ``by``, ``arm``, ``experiment``.
    """
    rows = []
    for record in records:
        content, answer = input_of(record), _answer(record, task)
        problem = None
        if record.get("request") is not None and record.get("asked") is None:
            problem = "unknown_request"
        elif content is None or answer is None:
            problem = "no_input" if content is None else _unanswered(record)
        row = row_of(f"feedback/{writable(record['id'])}", content, answer, problem, task, classes)
        kind, by = record["source"]["kind"], writable(str(record["source"]["id"]))
        told = {"kind": kind, "by": f"{kind}:{by}", "arm": record.get("arm"), "experiment": record.get("experiment")}
        rows.append(row | told)
    return rows


def row_of(
    source: str, content: Any, answer: str | None, problem: str | None, task: str, classes: Sequence[str]
) -> dict[str, Any]:
    """A record of a file as a row of :func:`rows_of`: a text, or a picture (pixels, or its file in base64)."""
    if problem is None and content is not None and answer is not None:
        problem = _broken(content, answer, task, classes)
    return {
        "source": source,
        "content": writable(content) if isinstance(content, str) else content,
        "answer": None if answer is None else writable(answer),
        "problem": problem,
        "kind": "import",
        "by": "import:file",
        "arm": None,
        "experiment": None,
    }


def drop_contradicted(records: Records, answers: Sequence[str]) -> None:
    """Drop all that a user says whom nearly everybody contradicts; see :mod:`danlu.improve.contradiction`.

    Args:
        records: Cleaned feedback; its columns ``kind`` and ``by`` say whose it is.
        answers: What each record answers, comparable.
    """
    kind, by = records.table.column("kind").to_pylist(), records.table.column("by").to_pylist()
    same, kept = records.same(), records.kept().tolist()
    users, labellers = ({by[row] for row in kept if kind[row] == each} for each in ("user", "labeller"))
    found = contradicted(((int(same[row]), by[row], answers[row]) for row in kept), users, labellers)
    _drop(records, {"contradicted": [(row, found[by[row]]) for row in kept if by[row] in found]})


def settle_conflicts(records: Records, answers: Sequence[str]) -> None:
    """Of each text keep one record with the answer that wins; see the module.

    Args:
        records: Cleaned feedback; its columns ``kind`` and ``by`` say whose it is.
        answers: What each record answers, comparable.
    """
    kind, by = records.table.column("kind").to_pylist(), records.table.column("by").to_pylist()
    groups: dict[int, list[int]] = defaultdict(list)
    same = records.same()
    for row in records.kept().tolist():
        groups[int(same[row])].append(row)
    weight = Counter(by)
    dropped: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for rows in groups.values():
        rank = max(RANKS[kind[row]] for row in rows)
        votes: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            votes[answers[row]] |= {by[row]} if RANKS[kind[row]] == rank else set()
        most = max(len(voters) for voters in votes.values())
        winners = [answer for answer, voters in votes.items() if len(voters) == most]
        told = ", ".join(f"{answer}: {len(voters)}" for answer, voters in votes.items())
        if len(winners) > 1:
            dropped["conflict"] += [(row, told) for row in rows]
            continue
        agreed = [row for row in rows if answers[row] == winners[0]]
        # It counts for the source that can best afford it: one that said little, of the highest rank.
        kept = min(agreed, key=lambda row: (-RANKS[kind[row]], weight[by[row]], row))
        whose = "labellers decide" if rank == RANKS["labeller"] else "most sources decide"
        dropped["outvoted"] += [(row, f"{whose}; {told}") for row in rows if answers[row] != winners[0]]
        dropped["repeated"] += [(row, records.sources(np.array([kept]))[0]) for row in agreed if row != kept]
    _drop(records, dropped)


def hold_out(records: Records, share: float, trained: Known, clean: CleanConfig) -> _Rows:
    """Take the gold records out: int64, the rows of a fixed share of the texts that labellers labelled.

    What the model was trained on, or nearly, cannot judge it; such a text stays where it is.
    """
    kept = records.kept()
    kinds = records.table.column("kind").to_pylist()
    digests = records.digests(kept)
    chosen = [
        row
        for row, digest in zip(kept.tolist(), digests, strict=True)
        if kinds[row] == "labeller" and _place(b"gold " + digest) < share
    ]
    rows = np.array(chosen, np.int64)
    found = _alike(records, rows, trained, clean)
    gold = rows[[row not in found for row in chosen]]
    records.drop(gold, "held_out", ["by the hash of its text"] * len(gold))
    return gold


def keep_apart(records: Records, held_out: Known, clean: CleanConfig) -> None:
    """Drop what is the same as, or nearly, something that models are judged by."""
    found = _alike(records, records.kept(), held_out, clean)
    _drop(records, {"leak": list(found.items())})


def drop_learnt(records: Records, trained: Known, answers: Sequence[str]) -> list[int]:
    """Drop what the training data say already, or say otherwise.

    Returns:
        The training records that a labeller's answer takes the place of.
    """
    kinds = records.table.column("kind").to_pylist()
    place = {digest: at for at, digest in enumerate(trained.digests)}
    dropped: dict[str, list[tuple[int, str]]] = defaultdict(list)
    corrected = []
    kept = records.kept()
    for row, digest in zip(kept.tolist(), records.digests(kept), strict=True):
        if (at := place.get(digest)) is None:
            continue
        if trained.answers[at] == answers[row]:
            dropped["learnt"].append((row, ""))
        elif kinds[row] == "labeller":
            corrected.append(at)
        else:
            dropped["contradicts_training"].append((row, f"the training data say {trained.answers[at]}"))
    _drop(records, dropped)
    return corrected


def balance_arms(records: Records) -> None:
    """Of each experiment use as many records from the challenger's arm as there are from the champion's, at most."""
    columns = (records.table.column(name).to_pylist() for name in ("arm", "experiment"))
    arms = list(zip(*columns, strict=True))
    kept = records.kept()
    n_champion = Counter(arms[row][1] for row in kept.tolist() if arms[row][0] == "champion")
    rows: dict[str, list[int]] = defaultdict(list)
    for row in kept.tolist():
        if arms[row][0] == "challenger":
            rows[arms[row][1]].append(row)
    dropped = []
    for experiment, mine in rows.items():
        n = n_champion[experiment]
        told = f"the champion's arm of {experiment} brought {n}, the challenger's {len(mine)}"
        dropped += [(row, told) for row in _by_hash(records, mine)[n:]]
    _drop(records, {"challenger_only": dropped})


def limit_sources(records: Records, quota: float, most: int) -> None:
    """Hold every user to a share of all that is used, and to a number.

    Args:
        records: What is left.
        quota: The largest share of one user, in (0, 1].
        most: The largest number of records of one user.
    """
    kinds = records.table.column("kind").to_pylist()
    by = records.table.column("by").to_pylist()
    rows: dict[str, list[int]] = defaultdict(list)
    for row in records.kept().tolist():
        if kinds[row] == "user":
            rows[by[row]].append(row)
    n_free = len(records.kept()) - sum(map(len, rows.values()))
    sizes = {name: len(mine) for name, mine in rows.items()}
    cap = _cap(list(sizes.values()), n_free, quota, most)
    dropped = []
    for name, mine in rows.items():
        told = f"{name} may make up {cap} of what is used and gave {len(mine)}"
        dropped += [(row, told) for row in _by_hash(records, mine)[cap:]]
    _drop(records, {"quota": dropped})


def _cap(sizes: Sequence[int], n_free: int, quota: float, most: int) -> int:
    """The largest number c so that no source, each cut to c, has more than its share of all together."""
    low, high = 0, min(max(sizes, default=0), most)
    while low < high:  # the share of the largest grows with c
        middle = (low + high + 1) // 2
        total = n_free + sum(min(size, middle) for size in sizes)
        if middle <= quota * total + 1e-9:
            low = middle
        else:
            high = middle - 1
    return low


def _alike(records: Records, rows: _Rows, known: Known, clean: CleanConfig) -> dict[int, str]:
    """Which of some records are the same as, or nearly, known ones, and what each is like."""
    place = {digest: at for at, digest in enumerate(known.digests)}
    found = {}
    for row, digest in zip(rows.tolist(), records.digests(rows), strict=True):
        if (at := place.get(digest)) is not None:
            found[row] = f"the same as one of {known.names[at]}"
    if known.contents is None or not len(known.contents) or not len(rows):
        return found
    # The rarer side is indexed: `find_leaks` looks for texts of rank 0 that are like those of rank 1.
    texts = pa.concat_arrays([known.contents.cast(pa.large_string()), _joined(records.contents.take(pa.array(rows)))])
    rank = np.repeat([0, 1], [len(known.contents), len(rows)]).astype(np.int64)
    leaks = find_leaks(texts, rank, n=clean.near_ngram, floor=clean.near_threshold)
    for mine, other, jaccard in zip(leaks.held_out.tolist(), leaks.other.tolist(), leaks.jaccard.tolist(), strict=True):
        row = int(rows[mine - len(known.contents)])
        found.setdefault(row, f"too like one of {known.names[other]}, Jaccard {jaccard:.2f}")
    return found


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.to_pylist(), pa.large_string())


def _drop(records: Records, dropped: Mapping[str, Sequence[tuple[int, str]]]) -> None:
    for reason, rows in dropped.items():
        if rows:
            numbers, details = zip(*rows, strict=True)
            records.drop(np.array(numbers, np.int64), reason, list(details))


def _place(content: bytes) -> float:
    """A place in [0, 1) that follows from some bytes alone."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64


def _by_hash(records: Records, rows: Sequence[int]) -> list[int]:
    """Rows in an order that follows from their contents: who is cut is not who came last."""
    digests = records.digests(np.array(rows, np.int64))
    return [row for _, row in sorted(zip((_place(b"order " + each) for each in digests), rows, strict=True))]


def _answer(record: Mapping[str, Any], task: str) -> str | None:
    """What a record says the answer should be; approval says that the answer given was it."""
    given = record.get("text" if task == "translation" else "label")
    if given is not None:
        return str(given)
    return answer_to(record) if record.get("correct") is True else None


def _unanswered(record: Mapping[str, Any]) -> str:
    if record.get("rating") is not None:
        return "only_rated"
    return "wrong_without_answer" if record.get("correct") is False else "no_answer"


def _broken(content: Any, answer: str, task: str, classes: Sequence[str]) -> str | None:
    texts = [text for text in (content, answer) if isinstance(text, str)]
    if any("\ud800" <= letter <= "\udfff" for text in texts for letter in joined(text)):
        return "half_surrogate"
    if not all(text.strip() for text in texts):
        return "empty"
    if task.endswith("classification") and answer not in classes:
        return "unknown_label"
    return None
