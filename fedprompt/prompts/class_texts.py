"""Class texts that begin with placeholders, and their encoder under a changing prompt."""

from collections.abc import Sequence
from dataclasses import replace

from torch.nn import functional as F

from fedprompt.backbone.class_encoder import PLAIN, Speedups, class_encoder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import BackboneError, DataError, PromptError
from fedprompt.prompts.words import class_text, spoken_template
from fedprompt.types import TextFeatures, TextTokens, Tokens


class ClassTexts:
    """Encode a list of classes under text prompts.

    Parameters
    ----------
    clip
        The frozen CLIP.
    classes
        Ordered class names.
    template
        Text with ``{}``; what stands behind it follows the class name.
    length
        Number of prompt tokens in front of the name.
    speedups
        Of the text tower; all by default.
    """

    def __init__(
        self,
        clip: FrozenClip,
        classes: Sequence[str],
        template: str,
        length: int,
        speedups: Speedups | None = None,
    ) -> None:
        self._clip, self._length, self._count = clip, length, len(classes)
        self._tokens = class_tokens(clip, classes, spoken_template(template, length))
        _check_placeholders(clip, self._tokens, length)
        self._speedups = speedups or Speedups()
        self._encode = class_encoder(clip, self._tokens, length, self._speedups)

    def vectors(self, prompts: TextTokens) -> TextFeatures:
        """Return unit class vectors [classes joint]."""
        return F.normalize(self._encode(prompts), dim=-1)

    def plain_vectors(self, prompts: TextTokens) -> TextFeatures:
        """Return unit class vectors [classes joint] from the plain tower, for export."""
        encode = class_encoder(self._clip, self._tokens, self._length, PLAIN)
        return F.normalize(encode(prompts), dim=-1)

    def halve_chunk(self) -> bool:
        """Encode half as many classes at a time from now on; False if one at a time is too many.

        For a GPU whose memory is short (F31). The sums are the same but for their rounding.
        """
        at_once = min(self._speedups.chunk or self._count, self._count)
        if at_once < 2:
            return False
        self._speedups = replace(self._speedups, chunk=at_once // 2)
        self._encode = class_encoder(self._clip, self._tokens, self._length, self._speedups)
        return True


def class_tokens(clip: FrozenClip, classes: Sequence[str], template: str) -> Tokens:
    """Return the token ids [classes length] of each class's text.

    Raises
    ------
    PromptError
        The template leaves no room for a name.
    DataError
        A class name is too long for the text tower.
    """
    tokens, cut = clip.tokenize_cut([class_text(template, name) for name in classes])
    if not cut:
        return tokens
    most = tokens.shape[1]
    if clip.tokenize_cut([class_text(template, "X")])[1]:
        raise PromptError(
            f"the prompt and the words of data.template take all {most} tokens that the text tower "
            "reads, and leave none for a class name; set a smaller prompt.tokens, or a shorter "
            "data.template"
        )
    raise DataError(
        f"the class name {classes[cut[0]][:60]!r} does not fit: the prompt, data.template and the "
        f"name may take {most} tokens of the text tower together; shorten the name"
    )


def placeholder_texts(classes: Sequence[str], template: str, length: int) -> list[str]:
    """Return "X X ... NAME REST" for each class: each X is one token, to be replaced."""
    spoken = spoken_template(template, length)
    return [class_text(spoken, name) for name in classes]


def _check_placeholders(clip: FrozenClip, tokens: Tokens, length: int) -> None:
    """Refuse a tokenizer that does not take each placeholder for one token."""
    found = tokens[:, clip.first_word : clip.first_word + length]
    if found.shape[1] != length or bool((found != found[0, 0]).any()):
        raise BackboneError(
            f"the tokenizer of {clip.name or 'this backbone'} does not read {length} times 'X' as "
            f"{length} equal tokens, so a context cannot take their place: choose another backbone"
        )
