"""Which prompt is tuned, and how it starts: what every method takes, and what some take beside it.

`fedprompt.prompts.methods` says which of these models is a method's.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from fedprompt.data.classes import one_form
from fedprompt.errors import PromptError
from fedprompt.settings.section import Place, Scalar, Section


class PromptConfig(Section):
    """Settings that every method takes."""

    # a name of `fedprompt methods`; dip = coop in form lowrank, another basis each round; dip-fixed
    # = DIP as published, of fixed rank; template, ensemble = zero-shot, nothing trained
    method: str = "dip"
    form: Literal["", "full", "lowrank"] = ""  # of every matrix; "" = the method's own
    rank: int = Field(1, ge=1, le=64)  # of the low-rank form, at most n
    dropout: float = Field(0.05, ge=0, lt=1)  # of A B, the light regulariser of DIP
    density_weight: float = Field(0, ge=0)  # lambda of DIP's DO: reward for information density
    tail_weight: float = Field(0, ge=0)  # lambda of DIP's PP: penalty on late singular values
    density_k: int = Field(1, ge=1)  # k of ID_k and of PP's sum over i > k
    density_squared: bool = False  # ID_k of squared singular values; the paper's form is not sure
    # whose prompt it is: one of all sites; each site's own, nothing is merged; or both, mixed
    personal: Literal["global", "local", "both"] = "global"
    local_share: float = Field(0.5, ge=0, le=1)  # theta, the local prompt's part of the mixture
    seed: int = Field(0, ge=0, lt=2**32)  # of the start

    @classmethod
    def of(cls, config: "PromptConfig") -> Self:
        """Return a configuration as this model.

        Raises
        ------
        PromptError
            Its method takes other settings.
        """
        if not isinstance(config, cls):
            raise PromptError(f"prompt.method = {config.method} takes no {cls.__name__}")
        return config

    def describe_whose(self) -> dict[str, Scalar]:
        """Return whose prompt it is, if not everyone's: scores are those of more than it then."""
        if self.personal == "global":
            return {}
        return {"personal": self.personal, "local_share": self.local_share}


class ContextConfig(PromptConfig):
    """Settings of a text context."""

    # prompt length n; 0 = as many as the starting words have, or the method's own; of more words
    # the first n are tuned and the others stay words
    tokens: int = Field(0, ge=0, le=128)
    # words to start from; empty = the words before the name in data.template; random = N(0, 0.02)
    init: str = ""


class PromptedConfig(PromptConfig):
    """Settings of prompts that enter CLIP's towers."""

    # what is minimised; "" = the method's own (alignment: ADAPT's 1 - cos)
    objective: Literal[
        "", "cross-entropy", "kgcoop", "prograd", "promptsrc", "alignment"
    ] = ""  # fmt: skip
    # factor on the published weights of kgcoop, prograd and promptsrc; 0 = cross-entropy alone
    regularisation: float = Field(1.0, ge=0)
    # frozen class vectors that promptsrc holds on to: of the mean over its code's 60 templates, or
    # of data.template alone
    teacher: Literal["diverse", "template"] = "diverse"


class TextConfig(PromptedConfig, ContextConfig):
    """Settings of prompts that enter the text tower."""


class CoopConfig(TextConfig):
    """Settings of a text context beside the class name."""

    # where the class name stands: behind the n vectors of the text prompt, behind half of them, or
    # in front of all
    name_position: Literal["end", "middle", "front"] = "end"
    # each class has a text prompt of its own, which serves no other classes
    class_specific: bool = False


class DeepConfig(TextConfig):
    """Settings of prompts that enter several blocks of both towers."""

    depth: int = Field(0, ge=0, le=64)  # prompted blocks J of a tower; 0 = the method's own


class MudptConfig(DeepConfig):
    """Settings of prompts that shift each other."""

    maps: Literal["linear", "transformer"] = "linear"  # between the towers' prompts
    freeze_maps: bool = False  # keep the seed's maps: prompts alone are trained and sent


class VptConfig(PromptedConfig):
    """Settings of prompts of the image tower."""

    tokens: int = Field(0, ge=0, le=128)  # prompt length n; 0 = the method's own
    depth: int = Field(0, ge=0, le=64)  # prompted blocks J of a tower; 0 = the method's own
    first_layer: int = Field(0, ge=0, le=63)  # first prompted block of the image tower


class SptConfig(VptConfig):
    """Settings of prompts that start at the tower's own patch tokens."""

    # how visual prompts are picked from the tower's own patch tokens
    start: Literal["kmeans", "random", "mean", "max"] = "kmeans"
    # data source of the images that spt starts from, which everyone may see; a site sets its own
    public: Place = ""
    start_images: int = Field(64, ge=1, le=4096)  # images that spt starts from, at most
    # spt starts from noised k-means centres of the sites' own tokens: standard deviation of the
    # noise over the usual norm of a token in its layer; 0 = no site is asked
    start_noise: float = Field(0.0, ge=0)


class AdaptConfig(TextConfig):
    """Settings of prompts of several domains."""

    # names of the sites' domains, with commas between; "" = those of the data
    domains: Annotated[str, AfterValidator(one_form)] = ""
    # this site's own domain, where its images do not say it; a site sets its own
    domain: Annotated[str, AfterValidator(one_form)] = ""
