"""The parts that rounds share."""

from server.joining.admission import Site
from server.merge.rules import RULES
from server.rounds.federation import federation
from server.rounds.local_grid import LocalGrid
from tests.sites import client, config, task


def test_a_federation_starts_empty_with_the_configured_parts(tmp_path):
    with LocalGrid(client(), 1, {}) as grid:
        found = federation(grid, task(), config(tmp_path, rule="factors", strategy="fedadam"))
        assert found.rule is RULES["factors"]
        assert type(found.strategy).__name__ == "FedAdam"
        assert found.roster.sites == {}
        asked = found.asked([Site(0, 1000, 9)], 2)
    assert (asked[1000].site, asked[1000].enrolled) == (0, 9)
