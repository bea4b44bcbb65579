"""Average A and B each for itself: the baseline. mean(A) mean(B) is not mean(A B)."""

from collections.abc import Sequence

import numpy as np

from fedprompt.prompt_state import Dense, left, pairs, right
from server.merge.rules.rule import Rule, identity_lift, identity_project


def merge_error(updates: Sequence[Dense], weights: Sequence[float]) -> float:
    """Return the relative distance of mean(A) mean(B) from mean(A B), over all matrices."""
    share = np.asarray(weights, np.float64) / np.sum(weights)
    lost = total = 0.0
    for m in pairs(updates[0]):
        lefts = np.stack([update[left(m)] for update in updates])
        rights = np.stack([update[right(m)] for update in updates])
        exact = np.einsum("s,snr,srd->nd", share, lefts, rights)
        merged = np.tensordot(share, lefts, 1) @ np.tensordot(share, rights, 1)
        lost += float(np.sum((merged - exact) ** 2))
        total += float(np.sum(exact**2))
    return float(np.sqrt(lost / total)) if total else 0.0


RULE = Rule(identity_lift, identity_project, merge_error)
