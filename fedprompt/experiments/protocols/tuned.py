"""A method as tuning left it; it may meet other classes and images than it was tuned on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from client.tuning.evaluate import predict
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.image_set import ImageSet
from fedprompt.errors import PromptError
from fedprompt.experiments.evaluation import metrics
from fedprompt.experiments.reply_size import reply_bytes
from fedprompt.experiments.setup import open_experiment
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.build import Prompt, build_prompt, is_tied, recipe_of
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat


@dataclass(frozen=True, kw_only=True)
class Size:
    """Count the numbers a site trains, those it sends in a round, and the bytes of its reply."""

    parameters: int
    sent: int
    bytes_up: int


@dataclass(frozen=True)
class Tuned:
    """Hold a tuned method.

    Attributes
    ----------
    clip
        The frozen CLIP.
    config
        Of the run it was tuned in.
    classes
        It was tuned for.
    artefact
        None for a method that trains nothing.
    """

    clip: FrozenClip
    config: RunConfig
    classes: tuple[str, ...]
    artefact: Artefact | None

    def for_classes(self, classes: Sequence[str]) -> Prompt | None:
        """Return the method for a list of classes, with what was trained.

        None when what was trained belongs to other classes, as a linear probe's rows and
        class-specific vectors do.
        """
        if self.artefact is None:
            template = self.config.data.template
            return build_prompt(self.config.prompt, self.clip, classes, template)
        if tuple(classes) != self.classes and is_tied(self.config.prompt):
            return None
        metadata = {**self.artefact.metadata, "classes": list(classes)}
        return from_artefact(replace(self.artefact, metadata=metadata), self.clip)

    def as_tuned(self) -> Prompt:
        """Return the method for the classes it was tuned for."""
        prompt = self.for_classes(self.classes)
        if prompt is None:
            raise PromptError("the method cannot tell the classes it was tuned for")
        return prompt

    def score(self, changes: Flat, chosen: ImageSet | None = None) -> dict[str, float] | None:
        """Return the metrics on test images; None for classes that the method cannot tell.

        Parameters
        ----------
        changes
            Settings that name other images than those of the run.
        chosen
            Images to score; None = all test images that the settings name.
        """
        bench = open_experiment(self.config.override(changes))
        images = bench.test if chosen is None else chosen
        prompt = self.for_classes(images.classes)
        if prompt is None:
            return None
        encoded, labels = bench.encode(images, prompt.first_layer)
        return metrics(predict(prompt, encoded), labels)

    @cached_property
    def size(self) -> Size:
        """Return what a site trains and sends; a local prompt is trained and stays."""
        if self.artefact is None:
            return Size(parameters=0, sent=0, bytes_up=0)
        prompt, personal = self._in_training(), self.config.prompt.personal
        own = prompt.leaving()
        arrays = PromptState() if personal == "local" else own
        trained = sum(array.size for array in own.values())
        return Size(
            parameters=2 * trained if personal == "both" else trained,
            sent=sum(array.size for array in arrays.values()),
            bytes_up=reply_bytes(arrays, self.config.server.dtype),
        )

    def _in_training(self) -> Prompt:
        """Return the method as sites train it; of a fresh basis the artefact has no trace."""
        rule = self.config.server.rule
        if rule != "fresh-basis" or self.artefact is None:
            return self.as_tuned()
        metadata = {**self.artefact.metadata, "form": self.form, "rank": self.config.prompt.rank}
        return from_artefact(replace(self.artefact, metadata=metadata), self.clip, rule=rule)

    @property
    def form(self) -> str:
        """Return the form in which its matrices are trained."""
        prompt = self.config.prompt
        return prompt.form or recipe_of(prompt.method).form if self.artefact else ""
