"""AdvPT: CoOp's host, trained on attacked images (arXiv 2311.11261; code).

32 free text vectors, drawn N(0, 0.02), class name at the end, tuned by cross-entropy on the site's
adversarial bank (`client/features/adversarial_features.py`), whose features are computed once: the
image tower does not run.
Trained and sent: ``ctx`` [32 width], 16,384 numbers at width 512; in form lowrank of rank 1
``ctx.A`` and ``ctx.B``, 544 numbers. Folds into class vectors.
"""

from dataclasses import replace

from fedprompt.prompts.coop import Coop
from fedprompt.prompts.host import Material
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import RANDOM
from fedprompt.settings.prompt import CoopConfig

LENGTH = 32


def advpt(material: Material) -> Coop:
    """Return CoOp's host at the method's own length and start, unless the settings name others."""
    config = CoopConfig.of(material.config)
    init = config.init or RANDOM
    tokens = config.tokens or (LENGTH if init == RANDOM else 0)
    own = config.model_copy(update={"init": init, "tokens": tokens})
    return Coop(replace(material, config=own))


ADVPT = Recipe(advpt, bank="adversarial")
