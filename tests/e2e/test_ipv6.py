"""A deployment whose address is an IPv6 one, by its commands: sites dial it and tune a prompt."""

import pytest

from tests.deployment import deployment
from tests.ipv6 import has_ipv6


@pytest.mark.slow
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_sites_that_dial_an_ipv6_address_tune_a_prompt(tmp_path):
    with deployment(tmp_path, {"server.rounds": 1}, host="::1") as made:
        assert made.folder.config().host == "::1"
        server = made.serve()
        for seed, name in enumerate(("north", "south")):
            made.site(name, seed).start()
        assert server.result() == 0, made.told()
        assert made.lines()[-1]["round"] == 1
        assert f"listening at {made.address}" in server.told()
