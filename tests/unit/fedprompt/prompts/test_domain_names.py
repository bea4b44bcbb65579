import numpy as np
import pytest

from fedprompt.data.image_set import ImageSet
from fedprompt.errors import PromptError
from fedprompt.prompts.domain_names import domain_names, domain_of, of_data, of_site
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.prompt import AdaptConfig


class Nothing:
    def content(self, index: int) -> bytes:
        raise AssertionError

    def name(self, index: int) -> str:
        return str(index)


def images(*domains: int, names: tuple[str, ...] = ("ink", "clay")) -> ImageSet:
    count = len(domains) or 2
    return ImageSet(
        classes=("cat", "dog"),
        labels=np.zeros(count, np.int64),
        source=Nothing(),
        rows=np.arange(count),
        domains=np.array(domains, np.int64),
        domain_names=names if domains else (),
    )


def config(**changes: str) -> AdaptConfig:
    return AdaptConfig.of(prompt_config(method="adapt", **changes))


def test_names_are_read_in_their_order() -> None:
    assert domain_names(config(domains=" ink,clay , photo")) == ("ink", "clay", "photo")


@pytest.mark.parametrize("listed", ["", "ink", "ink, ink", " , "])
def test_fewer_than_two_names_are_refused(listed: str) -> None:
    with pytest.raises(PromptError, match="name two or more, each once"):
        domain_names(config(domains=listed))


def test_which_domain_an_array_is_of() -> None:
    names = ["text.0", "text.12.A", "text.3.B", "visual", "visual.A"]
    assert [domain_of(name) for name in names] == [0, 12, 3, None, None]


def test_the_data_names_the_domains_where_nobody_does() -> None:
    assert of_data(config(), images(0, 1)).domains == "ink, clay"
    assert of_data(config(domains="a, b"), images(0, 1)).domains == "a, b"
    coop = prompt_config(method="coop")
    assert of_data(coop, images(0, 1)) == of_site(coop, images(0, 1)) == coop


def test_a_site_takes_the_domain_of_its_images() -> None:
    found = of_site(config(), images(1, 1))
    assert (found.domain, found.domains) == ("clay", "ink, clay")
    named = of_site(config(domain="b", domains="a, b"), images())
    assert named.domain == "b"


@pytest.mark.parametrize(
    ("changes", "domains", "message"),
    [
        ({}, (0, 1), "images are of ink, clay; .* data.partitioner = domain"),
        ({"domain": "ink"}, (1,), "images are of clay, prompt.domain is ink"),
        ({"domains": "a, b"}, (), "nothing says which domain .* one of a, b"),
        ({"domains": "a, b"}, (0,), "this site's domain is 'ink', the run has a, b"),
    ],
)
def test_a_site_of_no_one_domain_is_refused(
    changes: dict[str, str], domains: tuple[int, ...], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        of_site(config(**changes), images(*domains))


def test_names_are_of_one_unicode_form_as_those_of_manifests_are() -> None:
    config = prompt_config(
        method="adapt", domains="Li\u0065\u0301ge, Bern", domain="Li\u0065\u0301ge"
    )
    assert (config.domains, config.domain) == ("Li\u00e9ge, Bern", "Li\u00e9ge")
