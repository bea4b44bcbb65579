"""The adapter around Flower's workflow; drop-outs and hostile replies are in tests/faults."""

import numpy as np
import pytest

from client.reply.secure_aggregation import secured
from fedprompt.wire import to_array_record
from server.merge.secure_aggregation.mean import secure_mean
from server.merge.secure_aggregation.protocol import Protocol
from server.merge.secure_aggregation.stages import Expected
from server.rounds.federation import federation
from server.rounds.local_grid import LocalGrid
from server.rounds.strategy_adapter import Instruction, plan
from tests.sites import client, config, start, task


def mean(folder, sites, needed=1, clip=5.0):
    agreed = {"server.secure_aggregation": True, "server.clip_norm": clip}
    replies = []
    with LocalGrid(client(mods=[secured]), sites, agreed) as grid:
        found = federation(grid, task(), config(folder))
        found.roster.wait(grid, sites, 5)
        lifted = found.rule.lift(start())
        chosen = list(found.roster.sites.values())
        told = Instruction(found.task.run, 1, 0, sites)
        wire = dict.fromkeys((s.node for s in chosen), to_array_record(start(), "float32"))
        contents = plan(found.strategy, grid, lifted, wire, told)
        asked = found.asked(chosen, 1)
        expected = Expected(asked, 4 * 32)
        protocol = Protocol(grid, contents, expected, needed, 30.0, replies.append)
        result = secure_mean(protocol, lifted, clip)
    return result, replies


def test_the_mean_comes_with_its_weight_traffic_and_verdicts(tmp_path):
    found, replies = mean(tmp_path, 3)
    assert found.change["ctx"].shape == (4, 32)
    assert found.change["ctx"].any()
    assert found.weight == 3
    assert [(v.site, v.accepted, v.reasons) for v in found.verdicts] == [
        (site, True, ()) for site in range(3)
    ]
    assert found.traffic.up > 3 * 128 * 8  # eight bytes an entry, masked
    assert replies[-1] == 3  # only the stage that trains is counted


def test_a_ring_of_neighbours_carries_more_than_sixteen_sites(tmp_path):
    found, _ = mean(tmp_path, 18)
    assert found.weight == 18
    assert np.linalg.norm(found.change["ctx"]) < 5.0


def test_two_sites_are_told_apart_and_refused(tmp_path):
    found, _ = mean(tmp_path, 2)
    assert found.change is None
    assert "3 to 65535 sites, found 2" in found.shortfall


@pytest.mark.parametrize("needed", [4, 5])
def test_fewer_than_needed_stay_masked(tmp_path, needed):
    found, _ = mean(tmp_path, 3, needed=needed)
    assert found.change is None
    assert f"3 of 3 masked vectors came, {needed} needed" in found.shortfall
