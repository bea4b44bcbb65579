"""What server and sites must agree on before a round: shown when joining, bound into receipts."""

from collections.abc import Sequence
from importlib.metadata import version

from fedprompt.backbone.clip import FrozenClip
from fedprompt.identity import canonical_json, sha256_arrays
from fedprompt.prompt_state import left
from fedprompt.prompts.build import Prompt

FROZEN = ("start", left(""))  # how the names of matrices end that every site must begin with


def identity_card(
    clip: FrozenClip, prompt: Prompt, classes: Sequence[str], template: str
) -> dict[str, str]:
    """Return the shared identity (F12-F14), one string a field.

    ``backbone`` and ``tokenizer`` are hashes, ``classes`` is a JSON list, ``method`` names the
    prompt, its length, its template, how images are prepared and the hash of its frozen matrices:
    the start and, under a shared basis, A. The rank is left out: sites of unequal rank may meet.
    """
    described = {key: value for key, value in prompt.describe().items() if key != "rank"}
    frozen = prompt.frozen_arrays()
    start = {name: array for name, array in frozen.items() if name.endswith(FROZEN)}
    described |= {"preprocessing": clip.preprocessing.to_dict(), "template": template}
    method = described | {"start": sha256_arrays(start)[:16]}
    return {
        "version": version("fedprompt"),
        "backbone": clip.fingerprint,
        "tokenizer": clip.tokenizer_fingerprint,
        "classes": canonical_json(list(classes)).decode(),
        "method": canonical_json(method).decode(),
    }
