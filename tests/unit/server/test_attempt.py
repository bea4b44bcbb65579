"""One try of a round."""

from server.attempt import attempt, complaint, line
from server.federation import federation
from server.local_grid import LocalGrid
from tests.sites import client, config, start, task


def once(folder, sites=4, number=0, spoilt=None, **settings):
    with LocalGrid(client(train=spoilt), sites, {}) as grid:
        found = federation(grid, task(), config(folder, **settings))
        found.roster.wait(grid, sites, 5)
        return attempt(found, start(), 1, number, lambda _: None)


def _raise(message, reply):
    raise RuntimeError("out of memory")


def test_a_try_with_a_quorum_merges(tmp_path):
    found = once(tmp_path)
    assert found.merged is not None
    assert found.loss == 1.0
    told = line(found, found.merged)
    assert told["asked"] == told["answered"] == told["accepted"] == [0, 1, 2, 3]
    assert told["verdicts"] == []
    assert told["bytes_up"] > 0


def test_a_try_below_quorum_says_why(tmp_path):
    found = once(tmp_path, spoilt=dict.fromkeys((0, 1, 2), _raise))
    assert found.merged is None
    assert complaint(found).startswith("3 of 4 replies refused, below quorum: site 0: error (")
    assert "out of memory" in complaint(found)


def test_a_long_complaint_is_cut(tmp_path):
    found = once(tmp_path, sites=12, spoilt=dict.fromkeys(range(12), _raise))
    assert complaint(found).count("site ") == 10
    assert complaint(found).endswith("...")


def test_half_the_replies_are_enough_by_default(tmp_path):
    assert once(tmp_path, spoilt=dict.fromkeys((0, 1), _raise)).merged is not None


def test_the_sample_depends_on_round_and_number_only(tmp_path):
    def sites(**changes):
        return [s.partition for s in once(tmp_path, sites=12, fraction=0.3, **changes).sites]

    assert sites() == sites()
    assert len(sites()) == 4
    assert sites(number=1) != sites()


def test_a_round_in_which_all_abstain_has_no_loss(tmp_path):
    def abstain(message, reply):
        reply["metrics"]["num-examples"] = 0
        return reply

    found = once(tmp_path, spoilt=dict.fromkeys(range(4), abstain))
    assert found.loss is None
    assert found.merged.arrays["ctx.A"].tobytes() == start()["ctx.A"].tobytes()
