"""Whom nearly everybody contradicts: a user who says otherwise than all others do, so that honest answers are lost.

One user who repeats honest answers with another label makes a tie of each, and a tie drops both (:mod:`guards`). How
many answers are contradicted does not tell who of the two is wrong: whoever was copied by one liar is contradicted as
often as the liar. By how many different people somebody is contradicted does. A user is not believed where all hold:

* **enough of it**: of a fifth or more of the texts that the user answered, labellers, or without them more sources than
  not, say otherwise. Fewer identities could otherwise silence somebody by contradicting a few answers of many.
* **in too many texts**: of the m texts that others answered, too, j are such, and the chance of j or more is at most
  0.01 / (number of users), if each were with a chance of 1/4.
* **by too many**: of the n sources that answered some of the same texts, k contradict the user on more of these than
  they agree on, and the chance of k or more is as small, if each did with a chance of 1/4.

Where an honest user is contradicted in a text with a chance of 1/4 at most, each text by itself, the chance that any
honest user is not believed is at most 0.01 by the second alone (Bonferroni). The third is for those whom a liar copies,
of whom the second does not hold; its sources depend on each other by the user's own mistakes, so that its number is a
bar and no rate. In a task in which honest people disagree more often, more honest users are lost. A liar about what
fewer than some six people said (the number grows with the logarithm of that of users) is not found, and costs an honest
answer a lie, as before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from scipy.stats import binom

__all__ = ["contradicted"]

LEVEL = 0.01
"""The chance that any honest user is not believed."""
ODDS = 0.25
"""The chance that an honest user is contradicted in a text, or on most of the common texts by another source."""
SHARE = 0.2
"""Of a user's texts, the smallest share on which others have to say otherwise."""


def contradicted(said: Iterable[tuple[int, str, str]], users: set[str], labellers: set[str]) -> dict[str, str]:
    """Find the users who are not to be believed.

    Args:
        said: (text, source, answer) of each record. Who gives several answers to a text says nothing of it.
        users: Sources that are to be judged.
        labellers: Sources that decide where they answered.

    Returns:
        user -> by how many, and how often.
    """
    answers: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for text, source, answer in said:
        answers[text][source].add(answer)
    texts = [{who: next(iter(one)) for who, one in voices.items() if len(one) == 1} for voices in answers.values()]
    n_texts: Counter[str] = Counter()
    n_shared: Counter[str] = Counter()
    n_against: Counter[str] = Counter()
    for voices in texts:
        deciding = {who: answer for who, answer in voices.items() if who in labellers} or voices
        votes = Counter(deciding.values())
        for who in voices.keys() & users:
            n_others = len(deciding) - (who in deciding)
            n_agree = votes[voices[who]] - (who in deciding)
            n_texts[who] += 1
            n_shared[who] += n_others > 0
            n_against[who] += n_others > 2 * n_agree
    level = LEVEL / max(1, len(users))
    often = {
        who
        for who, n in n_against.items()
        if n >= SHARE * n_texts[who] and binom.sf(n - 1, n_shared[who], ODDS) <= level
    }
    stances: dict[str, Counter[str]] = {who: Counter() for who in often}
    for voices in texts:
        for who in voices.keys() & often:
            for other, answer in voices.items():
                if other != who:
                    stances[who][other] += 1 if answer == voices[who] else -1
    found = {}
    for who in sorted(often):
        n, k = len(stances[who]), sum(balance < 0 for balance in stances[who].values())
        if binom.sf(k - 1, n, ODDS) <= level:
            found[who] = f"{k} of {n} others contradict {who}, in {n_against[who]} of {n_texts[who]} texts"
    return found
