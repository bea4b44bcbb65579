"""Average B alone and add A B to the prompt, with another orthonormal A in each round (ours).

The mean of A B is A times the mean of B, exactly, and as |A B| = |B| a norm, a clip and noise mean
the same for B as for the prompt. Strategies see the dense prompt, so that their momentum outlives
the basis. A is a function of the round (`fedprompt.basis`): nobody sends it, a repeated round has
the same one, and a site that joins late gets the prompt as everybody does.
"""

import numpy as np

from fedprompt.basis import columns
from fedprompt.prompt_state import Dense, PromptState, right
from server.merge.rules.rule import Rule, identity_lift, identity_project, no_merge_error


def place(current: PromptState, update: Dense, server_round: int) -> Dense:
    """Return the prompts that an update gives: S + A B, and others as the update has them."""
    placed: Dense = {}
    for name in sorted(current):
        if name in update:
            placed[name] = update[name]
        else:
            b = update[right(name)]
            basis = columns(len(current[name]), len(b), server_round - 1)
            placed[name] = current[name].astype(np.float64) + basis.astype(np.float64) @ b
    return placed


RULE = Rule(identity_lift, identity_project, no_merge_error, place=place)
