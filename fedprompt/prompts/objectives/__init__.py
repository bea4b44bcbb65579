"""Objectives: how a prompted CLIP is trained, one file each."""

from fedprompt.prompts.objectives.alignment import by_alignment
from fedprompt.prompts.objectives.cross_entropy import by_cross_entropy
from fedprompt.prompts.objectives.kgcoop import by_kgcoop
from fedprompt.prompts.objectives.objective import Objective
from fedprompt.prompts.objectives.prograd import by_prograd
from fedprompt.prompts.objectives.promptsrc import by_promptsrc

CROSS_ENTROPY = "cross-entropy"
OBJECTIVES: dict[str, Objective] = {
    CROSS_ENTROPY: by_cross_entropy,
    "kgcoop": by_kgcoop,
    "prograd": by_prograd,
    "promptsrc": by_promptsrc,
    "alignment": by_alignment,
}

__all__ = ["CROSS_ENTROPY", "OBJECTIVES", "Objective"]
