"""The frozen CLIP: one owner of the weights, always in eval mode, never trained."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fedprompt.backbone.fingerprint import model_fingerprint, tokenizer_fingerprint
from fedprompt.backbone.image_tower import ImageTower, encode_images
from fedprompt.backbone.prompted_images import PromptedImages
from fedprompt.backbone.prompts import ImagePrompts, TextPrompts
from fedprompt.backbone.text_tower import TextTower
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import BackboneError
from fedprompt.types import (
    Activations,
    Context,
    ImageFeatures,
    Images,
    Pixels,
    TextFeatures,
    Tokens,
    UnitPixels,
)

ImageEncoder = Callable[[Activations, ImagePrompts], ImageFeatures]
Tokenizer = Callable[[list[str]], Tensor]


class FrozenClip(nn.Module):
    """Own an open_clip model whose weights never change.

    Parameters
    ----------
    model
        open_clip's ``CLIP`` or ``CustomTextCLIP``; it is frozen and put in eval mode for good.
    tokenizer
        open_clip's tokenizer of that model.
    preprocessing
        How pixels become its input.
    name, pretrained
        Where it came from, for records.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        *,
        name: str = "",
        pretrained: str = "",
    ) -> None:
        super().__init__()
        self._mean: Tensor
        self._std: Tensor
        self.model: Any = model.requires_grad_(False)  # its attributes are not typed
        self.tokenizer, self.preprocessing = tokenizer, preprocessing
        self.name, self.pretrained = name, pretrained
        self.fingerprint = model_fingerprint(model)
        self.tokenizer_fingerprint = tokenizer_fingerprint(tokenizer)
        self.logit_scale = float(model.get_parameter("logit_scale").exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = 0.0 if bias is None else float(bias)
        self.register_buffer("_mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("_std", torch.tensor(preprocessing.std), persistent=False)
        super().train(False)

    def train(self, mode: bool = True) -> "FrozenClip":  # noqa: ARG002
        """Stay in eval mode: frozen means owned."""
        return self

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return self._mean.device

    @cached_property
    def text(self) -> TextTower:
        """Return the text tower; BackboneError when it takes no prompt tokens."""
        return TextTower(self.model)

    @cached_property
    def image(self) -> ImageTower:
        """Return the image tower; BackboneError when it takes no prompt tokens."""
        return ImageTower(self.model.visual)

    @cached_property
    def prompted_images(self) -> ImageEncoder:
        """Return the encoder of prompted images, its weights laid out once for all who ask."""
        tower = self.image
        return PromptedImages(tower) if PromptedImages.fits(tower) else tower.encode

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return token ids [texts length] on the model's device.

        Raises
        ------
        BackboneError
            A text is longer than the tower reads; open_clip would cut it in silence.
        """
        tokens, cut = self.tokenize_cut(texts)
        if cut:
            raise BackboneError(
                f"{texts[cut[0]][:60]!r} does not fit the {tokens.shape[1]} tokens that the text "
                "tower reads; shorten it"
            )
        return tokens

    def tokenize_cut(self, texts: Sequence[str]) -> tuple[Tokens, list[int]]:
        """Return token ids [texts length], and the indices of the texts that open_clip cut."""
        tokens = self.tokenizer(list(texts))
        cut = [
            index
            for index, (text, row) in enumerate(zip(texts, tokens, strict=True))
            if row[-1] != 0 and torch.equal(row, self.tokenizer([f"{text} more words"])[0])
        ]
        return tokens.to(self.device), cut

    def encode_text(self, tokens: Tokens, prompts: TextPrompts | None = None) -> TextFeatures:
        """Return class features, not normalised; without prompts they are open_clip's own."""
        if prompts is None:
            features: Tensor = self.model.encode_text(tokens)
            return features
        return self.text.encode(tokens, prompts)

    def encode_image(self, images: Images, prompts: ImagePrompts | None = None) -> ImageFeatures:
        """Return image features, not normalised; without prompts they are open_clip's own."""
        return encode_images(self.model.visual, images, prompts)

    def normalise(self, pixels: Pixels) -> Images:
        """Scale bytes to what the image tower takes: (x / 255 - mean) / std, channels first."""
        return self.standardise(pixels.to(self.device).permute(0, 3, 1, 2).float() / 255)

    def standardise(self, pixels: UnitPixels) -> Images:
        """Return (x - mean) / std of each channel; gradients flow to x."""
        return (pixels - self._mean[:, None, None]) / self._std[:, None, None]

    def embed_words(self, words: str) -> Context:
        """Return the token embeddings [length width] of some words, without start and end.

        Source: CoOp's and DIP's start from "a photo of a".
        """
        tokens, empty = self.tokenize([words])[0], self.tokenize([""])[0]
        return self.text.embedding[tokens[~torch.isin(tokens, empty)]].detach().clone()

    @cached_property
    def first_word(self) -> int:
        """Return the position of a text's first word: 1 behind a start token, 0 without one."""
        return int(self.tokenize([""])[0, 0] == self.tokenize(["X"])[0, 0])
