"""Which prompt is tuned, and how it starts."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fedprompt.data.classes import one_form
from fedprompt.errors import ConfigError
from fedprompt.settings.section import Place, Section


class PromptConfig(Section):
    """Settings of the ``[prompt]`` section."""

    # a name of `fedprompt methods`; dip = coop in form lowrank, another basis each round; dip-fixed
    # = DIP as published, of fixed rank; template, ensemble = zero-shot, nothing trained
    method: Literal[
        "dip", "dip-fixed", "coop", "vpt", "ivlp", "maple", "mudpt", "sdpt",
        "kgcoop", "prograd", "promptsrc", "advpt", "spt", "adapt",
        "cocoop", "linear", "fedclip", "template", "ensemble"
    ] = "dip"  # fmt: skip
    # what is minimised; "" = the method's own (alignment: ADAPT's 1 - cos)
    objective: Literal[
        "", "cross-entropy", "kgcoop", "prograd", "promptsrc", "alignment"
    ] = ""  # fmt: skip
    form: Literal["", "full", "lowrank"] = ""  # of every matrix; "" = the method's own
    # prompt length n; 0 = as many as the starting words have, or the method's own; of more words
    # the first n are tuned and the others stay words
    tokens: int = Field(0, ge=0, le=128)
    # where the class name stands: behind the n vectors of the text prompt, behind half of them, or
    # in front of all (coop, dip, dip-fixed, kgcoop, prograd, advpt)
    name_position: Literal["end", "middle", "front"] = "end"
    # each class has a text prompt of its own, which serves no other classes (the same methods)
    class_specific: bool = False
    depth: int = Field(0, ge=0, le=64)  # prompted blocks J of a tower; 0 = the method's own
    first_layer: int = Field(0, ge=0, le=63)  # first prompted block of the image tower (vpt)
    maps: Literal["linear", "transformer"] = "linear"  # between the towers' prompts (mudpt)
    freeze_maps: bool = False  # keep the seed's maps: prompts alone are trained and sent (mudpt)
    # how visual prompts are picked from the tower's own patch tokens (spt)
    start: Literal["kmeans", "random", "mean", "max"] = "kmeans"
    # data source of the images that spt starts from, which everyone may see; a site sets its own
    public: Place = ""
    start_images: int = Field(64, ge=1, le=4096)  # images that spt starts from, at most
    # spt starts from noised k-means centres of the sites' own tokens: standard deviation of the
    # noise over the usual norm of a token in its layer; 0 = no site is asked
    start_noise: float = Field(0.0, ge=0)
    # names of the sites' domains, with commas between; "" = those of the data (adapt)
    domains: Annotated[str, AfterValidator(one_form)] = ""
    # this site's own domain, where its images do not say it; a site sets its own (adapt)
    domain: Annotated[str, AfterValidator(one_form)] = ""
    rank: int = Field(1, ge=1, le=64)  # of the low-rank form, at most n
    # words to start from; empty = the words before the name in data.template; random = N(0, 0.02)
    init: str = ""
    dropout: float = Field(0.05, ge=0, lt=1)  # of A B, the light regulariser of DIP
    density_weight: float = Field(0, ge=0)  # lambda of DIP's DO: reward for information density
    tail_weight: float = Field(0, ge=0)  # lambda of DIP's PP: penalty on late singular values
    # factor on the published weights of kgcoop, prograd and promptsrc; 0 = cross-entropy alone
    regularisation: float = Field(1.0, ge=0)
    # frozen class vectors that promptsrc holds on to: of the mean over its code's 60 templates, or
    # of data.template alone
    teacher: Literal["diverse", "template"] = "diverse"
    density_k: int = Field(1, ge=1)  # k of ID_k and of PP's sum over i > k
    density_squared: bool = False  # ID_k of squared singular values; the paper's form is not sure
    # whose prompt it is: one of all sites; each site's own, nothing is merged; or both, mixed
    personal: Literal["global", "local", "both"] = "global"
    local_share: float = Field(0.5, ge=0, le=1)  # theta, the local prompt's part of the mixture
    seed: int = Field(0, ge=0, lt=2**32)  # of the start

    def describe_whose(self) -> dict[str, Any]:
        """Return whose prompt it is, if not everyone's: scores are those of more than it then."""
        kept = set() if self.personal == "global" else {"personal", "local_share"}
        return self.model_dump(include=kept)


def check_own_rank(own: int, prompt: PromptConfig, rule: str) -> None:
    """Refuse a rank of a site's own, ``fit.rank``, that would do nothing or fit no other site's.

    Raises
    ------
    ConfigError
        Names the setting and what to choose.
    """
    if own and rule != "product":
        raise ConfigError(
            f"fit.rank = {own} under server.rule = {rule}: sites of unequal rank meet under "
            "product only; set fit.rank = 0, or server.rule = product (prompt.method = dip-fixed "
            "has it of itself)"
        )
    if own > prompt.rank:
        raise ConfigError(
            f"fit.rank = {own} is more than prompt.rank = {prompt.rank}: a site may train at a "
            f"smaller rank than the server's; set fit.rank = 0, or prompt.rank = {own}"
        )
