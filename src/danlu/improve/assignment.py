"""Which arm of an experiment a user belongs to: always the same one, and nobody has to remember it.

The arm follows from SHA-256 over the experiment and the user, so that two processes agree, a user keeps an arm across
restarts, and the arms of two experiments have nothing to do with each other. To whoever does not choose their own user
name by it, the assignment is one of chance with exactly the stated shares (to 2^-64).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from danlu.core.errors import UsageError

__all__ = ["arm_of"]


def arm_of(user: str, experiment: str, shares: Mapping[str, float]) -> str:
    """The arm of a user.

    The unit interval is cut in the order of ``shares``. Enlarging the share of the first arm therefore moves users
    into it and none out of it: name the challenger first, and it can be given more traffic without anybody going back
    and forth. (The comparison is of one share; one that is enlarged is a new experiment.)

    Args:
        user: Whatever stays the same about who asks: a key's id, an account, a session.
        experiment: Its name, with everything that should deal anew.
        shares: Arm -> share of users; they sum to 1.

    Raises:
        UsageError: The shares are no shares.
    """
    if not shares or any(not share >= 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1.0):
        raise UsageError(
            f"the shares of an experiment must be 0 or more and sum to 1, not {dict(shares)}", where=experiment
        )
    name = experiment.encode()
    digest = hashlib.sha256(len(name).to_bytes(8, "big") + name + user.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    chosen, upper = "", 0.0
    for arm, share in shares.items():
        # The last arm with a share also takes what shares that sum to a hair less than 1 leave over.
        if share > 0 and (not chosen or place >= upper):
            chosen = arm
        upper += share
    return chosen
