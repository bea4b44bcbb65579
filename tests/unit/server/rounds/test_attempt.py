"""One try of a round."""

from server.rounds.attempt import attempt, complaint, trained
from server.rounds.federation import federation
from server.rounds.local_grid import LocalGrid
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
    record = trained(found, found.merged, 1, 2)
    assert (record.round, record.attempt) == (1, 2)
    assert record.asked == record.answered == record.accepted == (0, 1, 2, 3)
    assert record.verdicts == ()
    assert record.bytes_up > 0


def test_a_try_below_quorum_says_why(tmp_path):
    found = once(tmp_path, spoilt=dict.fromkeys((0, 1, 2), _raise))
    assert found.merged is None
    told = complaint(found)
    assert told.startswith(
        "1 of 4 replies passed, 2 needed; 3 refused: site 0, site 1, site 2: error ("
    )
    assert "out of memory" in complaint(found)


def test_a_long_complaint_is_cut(tmp_path):
    found = once(tmp_path, sites=12, spoilt=dict.fromkeys(range(12), _raise))
    assert complaint(found).count("site ") == 10
    assert "site 9 ...: error (" in complaint(found)


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


def test_uniform_weights_average_the_loss_of_those_who_tell(tmp_path):
    def tell(loss):
        def spoil(message, reply):
            if loss is None:
                del reply["metrics"]["loss"]
            else:
                reply["metrics"]["loss"] = loss
            return reply

        return spoil

    spoilt = {0: tell(3.0), 1: tell(None), 2: tell(0.0), 3: tell(0.0)}
    assert once(tmp_path, spoilt=spoilt, weighting="uniform").loss == 1.0
    weighted = once(tmp_path, spoilt=spoilt).loss  # 100, 98 and 97 examples
    assert abs(weighted - 300 / 295) < 1e-12


def test_every_merged_site_is_measured(tmp_path):
    found = once(tmp_path, spoilt={2: _raise})
    assert list(found.measures) == [0, 1, 3]
    outliers = trained(found, found.merged, 1, 0).outliers
    assert list(outliers) == [0, 1, 3]
    assert -1 <= outliers[0].cosine <= 1


def test_sites_in_quarantine_are_not_asked(tmp_path):
    with LocalGrid(client(), 4, {}) as grid:
        found = federation(grid, task(), config(tmp_path))
        found.roster.wait(grid, 4, 5)
        tried = attempt(found, start(), 1, 0, lambda _: None, {0, 2})
        nobody = attempt(found, start(), 1, 0, lambda _: None, {0, 1, 2, 3})
        assert sorted(found.roster.sites) == [0, 1, 2, 3]
    assert [site.partition for site in tried.sites] == [1, 3]
    assert nobody.merged is None
    assert "no site is left to ask" in complaint(nobody)
