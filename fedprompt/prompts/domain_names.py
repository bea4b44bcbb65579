"""Which domains there are, and which one a site's images are of (ADAPT, arXiv 2310.03103)."""

import numpy as np

from fedprompt.data.image_set import ImageSet
from fedprompt.errors import PromptError
from fedprompt.settings.prompt import AdaptConfig, PromptConfig

METHOD = "adapt"  # the one method that asks


def domain_names(config: AdaptConfig) -> tuple[str, ...]:
    """Return the names that ``prompt.domains`` lists.

    Raises
    ------
    PromptError
        There are fewer than two, or two are alike.
    """
    names = tuple(name.strip() for name in config.domains.split(",") if name.strip())
    if len(names) < 2 or len(set(names)) < len(names):
        raise PromptError(
            f"prompt.domains = {config.domains!r}; prompt.method = {METHOD} has a prompt for each "
            "domain: name two or more, each once, with commas between, or take images that belong "
            "to domains (data.source = emoji, or a manifest with a domain column)"
        )
    return names


def domain_of(array: str) -> int | None:
    """Return the number of the domain that an array belongs to; None = of all domains."""
    parts = array.split(".")
    return int(parts[1]) if parts[0] == "text" else None


def of_data(config: PromptConfig, images: ImageSet) -> PromptConfig:
    """Return settings that name the domains: their own, else those of the images."""
    if not isinstance(config, AdaptConfig) or config.domains.strip():
        return config
    return config.model_copy(update={"domains": ", ".join(images.domain_names)})


def of_site(config: PromptConfig, images: ImageSet) -> PromptConfig:
    """Return settings that name the domains and the site's own: what its images say, or it itself.

    Raises
    ------
    PromptError
        The images are of several domains, of another one than ``prompt.domain`` says, or nobody
        says which; or the run has no such domain.
    """
    if not isinstance(config, AdaptConfig):
        return config
    config = AdaptConfig.of(of_data(config, images))
    own, known = _own(config, images), domain_names(config)
    if own not in known:
        raise PromptError(
            f"this site's domain is {own!r}, the run has {', '.join(known)}: put the site's into "
            "prompt.domain, or the run's into prompt.domains"
        )
    return config.model_copy(update={"domain": own})


def _own(config: AdaptConfig, images: ImageSet) -> str:
    found = [images.domain_names[i] for i in np.unique(images.domains)]
    named = config.domain.strip()
    if len(found) > 1 or (found and named and named != found[0]):
        raise PromptError(
            f"this site's images are of {', '.join(found)}"
            + (f", prompt.domain is {named}" if named else "")
            + f"; prompt.method = {METHOD} is for sites of one domain each: in a simulation set "
            "data.partitioner = domain"
        )
    if not (found or named):
        raise PromptError(
            "nothing says which domain this site's images are of: set prompt.domain to one of "
            f"{config.domains}"
        )
    return named or found[0]
