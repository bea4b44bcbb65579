import numpy as np
import pytest

from fedprompt.errors import ConfigError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.server import ServerConfig
from fedprompt.wire import from_array_record
from server.gate.verdict import Accepted
from server.joining.admission import Site
from server.merge.domains import MOMENTUM, Domains, check
from server.merge.rules import RULES

NAMES = ("ink", "clay")
SITES = [
    Site(0, 100, 9, domain="ink"),
    Site(1, 101, 9, domain="clay"),
    Site(2, 102, 9, domain="ink"),
]


def arrays(seed: int) -> PromptState:
    rng = np.random.default_rng(seed)
    shapes = {"text.0": (2, 3), "text.1": (2, 3), "visual": (2, 4)}
    return PromptState({name: rng.normal(size=shape) for name, shape in shapes.items()})


def sent(found: Domains, current: PromptState) -> dict[int, PromptState]:
    records = found.records(current, SITES, "float32")
    return {
        node: from_array_record(record, current.shapes(), "float32")
        for node, record in records.items()
    }


def test_a_site_gets_its_own_prompt_and_others_by_momentum() -> None:
    found = Domains(NAMES, RULES["product"])
    first, second, third = arrays(0), arrays(1), arrays(2)
    found.after(first)
    found.after(second)
    found.after(third)
    wire = sent(found, third)
    follows = {}
    for name in ("text.0", "text.1"):
        once = MOMENTUM * first[name].astype(float) + (1 - MOMENTUM) * second[name]
        follows[name] = MOMENTUM * once + (1 - MOMENTUM) * third[name]
    for node, own, other in ((100, "text.0", "text.1"), (101, "text.1", "text.0")):
        np.testing.assert_array_equal(wire[node][own], third[own])
        np.testing.assert_array_equal(wire[node]["visual"], third["visual"])
        np.testing.assert_allclose(wire[node][other], follows[other], rtol=1e-6)
    records = found.records(third, SITES, "float32")
    assert records[100] is records[102]  # measured and packed once


def test_factors_follow_as_products() -> None:
    rng = np.random.default_rng(3)
    shapes = {"text.0.A": (4, 1), "text.0.B": (1, 6), "text.1.A": (4, 1), "text.1.B": (1, 6)}
    first, second = (
        PromptState({name: rng.normal(size=shape) for name, shape in shapes.items()})
        for _ in range(2)
    )
    found = Domains(NAMES, RULES["product"])
    found.after(first)
    found.after(second)
    got = sent(found, second)[100]
    exact = MOMENTUM * first["text.1.A"] @ first["text.1.B"]
    exact = exact + (1 - MOMENTUM) * second["text.1.A"] @ second["text.1.B"]
    u, sigma, vt = np.linalg.svd(exact)
    best = sigma[0] * np.outer(u[:, 0], vt[0])
    np.testing.assert_allclose(got["text.1.A"] @ got["text.1.B"], best, rtol=1e-4, atol=1e-5)


def test_what_a_site_returns() -> None:
    found, current = Domains(NAMES, RULES["product"]), arrays(0)
    assert found.returned(current, SITES[1]).keys() == {"text.1", "visual"}
    assert Domains((), RULES["product"]).returned(current, SITES[1]) is current


def test_a_domain_moves_by_the_mean_of_its_own_sites() -> None:
    current, moved = arrays(0), [arrays(site + 1) for site in range(3)]
    updates = []
    for site, domain in zip(range(3), (0, 1, 0), strict=True):
        own = {**current, **{n: moved[site][n] for n in (f"text.{domain}", "visual")}}
        updates.append(Accepted(site, 100 + site, own, weight=site + 1, loss=None))
    pooled = Domains(NAMES, RULES["product"]).pooled(updates, SITES)
    expected = (1 * moved[0]["text.0"].astype(float) + 3 * moved[2]["text.0"]) / 4
    for site, update in enumerate(pooled):
        np.testing.assert_allclose(update.update["text.0"], expected, rtol=1e-6)
        np.testing.assert_allclose(update.update["text.1"], moved[1]["text.1"], rtol=1e-6)
        np.testing.assert_array_equal(update.update["visual"], moved[site]["visual"])
    alone = Domains(NAMES, RULES["product"]).pooled(updates[:1], SITES)
    np.testing.assert_array_equal(alone[0].update["text.1"], current["text.1"])


def test_it_goes_on_from_a_checkpoint() -> None:
    one, other = Domains(NAMES, RULES["product"]), Domains(NAMES, RULES["product"])
    for seed in range(3):
        one.after(arrays(seed))
    other.restore(one.state() | {"average/text.0": np.zeros(3)})
    for found in (one, other):
        found.after(arrays(3))
    assert one.state().keys() == other.state().keys() == {"domains/text.0", "domains/text.1"}
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, other.state()[name])


@pytest.mark.parametrize(
    ("prompt", "server", "privacy", "setting"),
    [
        ({}, {"secure_aggregation": True, "clip_norm": 1.0}, {}, "server.secure_aggregation"),
        ({}, {}, {"noise_multiplier": 1.0, "clip_norm": 1.0}, "privacy.noise_multiplier"),
        ({}, {"strategy": "multikrum"}, {}, "server.strategy = multikrum"),
        ({"personal": "both"}, {}, {}, "prompt.personal = both"),
    ],
)
def test_what_cannot_bear_domains_is_refused(
    prompt: dict, server: dict, privacy: dict, setting: str
) -> None:
    parts = (
        prompt_config(method="adapt", **prompt),
        ServerConfig(**server),
        PrivacyConfig(**privacy),
    )
    with pytest.raises(ConfigError, match=setting):
        check(*parts)
    check(parts[0].model_copy(update={"method": "coop"}), *parts[1:])
