"""What a tuned prompt makes of a class name that it has never seen."""

from dataclasses import dataclass

from export.fold.constants import Constants
from export.fold.types import TextTokens
from export.graph.read_tower import as_array
from fedprompt.errors import GraphError
from fedprompt.prompts.build import Prompt
from fedprompt.prompts.prompted import PromptedClip
from fedprompt.prompts.template import Template


@dataclass(frozen=True, eq=False)
class Words:
    """Hold how a class name becomes a text.

    Attributes
    ----------
    templates
        Texts with ``{}`` for the name; of several the mean of their vectors counts.
    context
        Tokens in place of the X beside the name; None = words alone.
    leading
        All of them stand in front of the name.
    """

    templates: tuple[str, ...]
    context: TextTokens | None = None
    leading: bool = True


def words_of(prompt: Prompt, template: str) -> Words:
    """Return the words of a prompt tuned with a template.

    Raises
    ------
    GraphError
        Each class has a text prompt of its own, so that a new one would have none.
    """
    if isinstance(prompt, Template):
        return Words(prompt.templates)
    context = prompt.text_prompt() if isinstance(prompt, PromptedClip) else None
    layout = prompt.layout if isinstance(prompt, PromptedClip) else None
    if context is None or layout is None:
        return Words((template,))
    if layout.class_specific:
        raise _closed(
            "prompt.class_specific = true", "each class it was tuned for has vectors of its own"
        )
    leading = layout.leading == layout.length
    return Words((layout.spoken(template),), as_array(context), leading)


def require_open(constants: Constants, method: str) -> None:
    """Refuse a prompt that can say nothing of new classes.

    Raises
    ------
    GraphError
        Says why.
    """
    reason = ""
    if constants.bias is not None:
        reason = "it has a weight and a bias of its own for each class it was tuned for"
    elif constants.mixture is not None:
        reason = "each image mixes the class vectors of several domains, not of one text prompt"
    if reason:
        raise _closed(f"prompt.method = {method}", reason)


def _closed(setting: str, reason: str) -> GraphError:
    return GraphError(
        f"{setting} has no open vocabulary: {reason}; export without --open-vocabulary, or tune a "
        "text prompt of all classes such as dip"
    )


def fixed_by(constants: Constants, words: Words, method: str) -> str:
    """Return why a bundle takes no other prompt of its kind; empty where it does."""
    inside = "which is inside classifier.onnx; export the artefact to a new bundle"
    if constants.visual is not None:
        return f"{method} prompts the image tower as well, {inside}"
    if constants.adapter is not None:
        return f"{method} tunes a feature adapter, {inside}"
    if words.context is None:
        return f"{method} has no text prompt that could be exchanged"
    return ""
