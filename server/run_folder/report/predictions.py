"""Read what ``fedprompt eval`` left in a run's folder."""

import base64
import binascii
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator, model_validator

from fedprompt.errors import DataError
from fedprompt.round_record import Count, Entry, Share, explain

Hit = Annotated[int, Field(ge=0, le=1)]
_PNG = b"\x89PNG\r\n\x1a\n"


class Sample(Entry):
    """Hold one image, what it shows and what the prompt took it for."""

    name: str
    true: str
    predicted: str
    probability: Share
    png: str = ""  # base64 of a thumbnail

    @field_validator("png")
    @classmethod
    def _is_png(cls, text: str) -> str:
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        if content and not content.startswith(_PNG):
            raise ValueError("not a PNG image")
        return text


class Predictions(Entry):
    """Hold the scores on a test set that no site trained on."""

    source: str = ""
    artefact: str = ""  # hash of the prompt that was scored
    images: Count | None = None
    accuracy: Share
    zero_shot_accuracy: Share | None = None
    macro_f1: Share | None = None
    ece: Share | None = None
    nll: Annotated[float, Field(ge=0)] | None = None
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[Count, ...], ...] = ()  # rows are the true classes
    samples: tuple[Sample, ...] = ()
    test_set: str = ""  # hash of the images, their labels and classes
    correct: tuple[Hit, ...] = ()  # image by image: 1 = correct
    zero_shot_correct: tuple[Hit, ...] = ()

    @model_validator(mode="after")
    def _is_square(self) -> "Predictions":
        sides = {len(self.confusion), *(len(row) for row in self.confusion)}
        if self.confusion and sides != {len(self.classes)}:
            raise ValueError(f"the confusion matrix is not {len(self.classes)} classes square")
        if len(self.correct) != len(self.zero_shot_correct):
            raise ValueError(
                f"{len(self.correct)} images are told of, and {len(self.zero_shot_correct)} for "
                "zero-shot CLIP"
            )
        return self


def read_predictions(path: Path) -> Predictions | None:
    """Return the predictions, or None where none were made.

    Raises
    ------
    DataError
        The file is damaged.
    """
    if not path.exists():
        return None
    try:
        return Predictions.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged ({explain(error)}); delete it or make it again with fedprompt eval"
        ) from None
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror}") from None
