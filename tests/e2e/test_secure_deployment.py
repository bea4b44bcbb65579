"""Secure aggregation between real processes: SuperLink, SuperNodes, keys and TLS on loopback."""

from pathlib import Path

import pytest

from tests.deployment import deployment

SETTINGS = {
    "data.clients": 3,
    "server.min_sites": 3,
    "server.rounds": 1,
    "server.secure_aggregation": True,
    "server.weighting": "uniform",
    "server.clip_norm": 5.0,
}
STAGES = [{"pk1", "pk2"}, {"dsts", "ctxts"}, {"masked_params"}, {"nids", "shares"}]


@pytest.mark.slow
def test_F29_three_sites_sum_in_secret_and_their_logs_tell_of_nothing_else(tmp_path: Path) -> None:
    with deployment(tmp_path, SETTINGS) as made:
        sites = [made.site(f"site-{number}", seed=number) for number in range(3)]
        made.serve()
        for site in sites:
            site.start()
        line = made.wait_round(1)
        assert line["accepted"] == sorted(site.number for site in sites), made.told()
        assert line["loss"] is None
        for site in sites:
            told = site.trained()
            fit = {"receipt", "code", "message"}  # beside the masked vector
            assert [set(entry["identity"]) - fit for entry in told] == STAGES
            assert not any(entry["arrays"] for entry in told)
