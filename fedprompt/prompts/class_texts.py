"""Class texts with placeholders, and their encoder under a changing prompt."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn import functional as F

from fedprompt.backbone.class_encoder import PLAIN, Speedups, class_encoder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import leading_places
from fedprompt.data.classes import same_words, spoken
from fedprompt.errors import BackboneError, DataError, PromptError
from fedprompt.prompts.words import Layout, class_text
from fedprompt.types import Places, TextFeatures, TextTokens, Tokens


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
    layout
        Where the prompt stands. Of a class-specific one the rows of class c are those from c length
        to (c + 1) length - 1.
    speedups
        Of the text tower; all by default.
    """

    def __init__(
        self,
        clip: FrozenClip,
        classes: Sequence[str],
        template: str,
        layout: Layout,
        speedups: Speedups | None = None,
    ) -> None:
        self._clip, self._count = clip, len(classes)
        self._tokens, self._places = placed_tokens(clip, classes, template, layout)
        self._speedups = speedups or Speedups()
        self._encode = class_encoder(clip, self._tokens, self._places, self._speedups)

    def vectors(self, prompts: TextTokens) -> TextFeatures:
        """Return unit class vectors [classes joint]."""
        return F.normalize(self._encode(prompts), dim=-1)

    def plain_vectors(self, prompts: TextTokens) -> TextFeatures:
        """Return unit class vectors [classes joint] from the plain tower, for export."""
        encode = class_encoder(self._clip, self._tokens, self._places, PLAIN)
        return F.normalize(encode(prompts), dim=-1)

    def halve_chunk(self) -> bool:
        """Encode half as many classes at a time from now on; False if one at a time is too many.

        For a GPU whose memory is short (F31). The sums are the same but for their rounding.
        """
        at_once = min(self._speedups.chunk or self._count, self._count)
        if at_once < 2:
            return False
        self._speedups = replace(self._speedups, chunk=at_once // 2)
        self._encode = class_encoder(self._clip, self._tokens, self._places, self._speedups)
        return True


def class_tokens(clip: FrozenClip, classes: Sequence[str], template: str) -> Tokens:
    """Return the token ids [classes length] of each class's text.

    Raises
    ------
    PromptError
        The template leaves no room for a name.
    DataError
        A class name is too long for the text tower, or two are the same tokens.
    """
    tokens, cut = clip.tokenize_cut([class_text(template, name) for name in classes])
    if not cut:
        _check_told_apart(classes, tokens)
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


def _check_told_apart(classes: Sequence[str], tokens: Tokens) -> None:
    """Refuse two names that this tokenizer makes equal; one name twice is the caller's affair."""
    first: dict[tuple[int, ...], str] = {}
    for name, row in zip(classes, tokens.tolist(), strict=True):
        other = first.setdefault(tuple(row), name)
        if spoken(other) != spoken(name):
            raise same_words(other, name)


def placed_tokens(
    clip: FrozenClip, classes: Sequence[str], template: str, layout: Layout
) -> tuple[Tokens, Places]:
    """Return each class's token ids, and which row of the prompt stands at which of them.

    Raises
    ------
    PromptError
        The template leaves no room for a name.
    DataError
        A class name is too long for the text tower.
    BackboneError
        The tokenizer does not take each placeholder for one token.
    """
    text = layout.spoken(template)
    tokens = class_tokens(clip, classes, text)
    places = leading_places(tokens, layout.leading, clip.first_word)
    if behind := layout.length - layout.leading:
        head = text.partition("{}")[0] + "{}"
        rows = torch.arange(layout.leading, layout.length, device=tokens.device)
        for index, begin in enumerate(_common(tokens, class_tokens(clip, classes, head))):
            places[index, begin : begin + behind] = rows[: places.shape[1] - begin]
    _check_placeholders(clip, tokens, places, layout.length)
    if layout.class_specific:
        first = layout.length * torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        places = torch.where(places < 0, places, places + first)
    return tokens, places


def _common(tokens: Tokens, others: Tokens) -> list[int]:
    """Return how many tokens each pair of texts begins with in common."""
    common: list[int] = (tokens == others).int().cumprod(1).sum(1).tolist()
    return common


def _check_placeholders(clip: FrozenClip, tokens: Tokens, places: Places, length: int) -> None:
    """Refuse a tokenizer that does not take each placeholder for one token."""
    placeholder = clip.tokenize(["X"])[0, clip.first_word]
    found = tokens[places >= 0]
    if len(found) != length * len(tokens) or bool((found != placeholder).any()):
        raise BackboneError(
            f"the tokenizer of {clip.name or 'this backbone'} does not read {length} times 'X' as "
            f"{length} equal tokens, so a context cannot take their place: choose another backbone"
        )
