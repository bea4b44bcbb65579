"""Who stands out, from made-up measures."""

from fedprompt.round_record import Measure, RoundRecord
from server.run_folder.report.standing_out import standing_out

USUAL = {0: (0.5, 1.0), 1: (0.6, 0.9), 2: (0.4, 1.1), 3: (0.7, 0.8), 4: (0.3, 1.2)}


def rounds(*changes):
    """Return lines in which some sites' (cosine, distance) differ from the usual."""
    return [
        RoundRecord(
            round=i, outliers={s: Measure(cosine=c, distance=d) for s, (c, d) in found.items()}
        )
        for i, found in enumerate({**USUAL, **change} for change in changes)
    ]


def test_a_site_that_pulls_the_other_way_is_named():
    assert standing_out(rounds(*[{2: (-0.6, 1.2)}] * 4)) == {2: (4, 4)}


def test_a_site_that_is_far_away_is_named():
    assert standing_out(rounds(*[{0: (0.5, 9.0)}] * 4)) == {0: (4, 4)}


def test_unlike_honest_sites_are_not():
    assert standing_out(rounds(*[{}] * 9)) == {}


def test_half_of_the_rounds_are_not_most():
    odd, even = {2: (-0.6, 1.2)}, {}
    assert standing_out(rounds(odd, even, odd, even)) == {}
    assert standing_out(rounds(odd, even, odd, even, odd)) == {2: (3, 5)}


def test_two_rounds_and_three_sites_tell_nothing():
    odd = {2: (-0.6, 1.2)}
    assert standing_out(rounds(odd, odd)) == {}
    few = [RoundRecord(round=0, outliers={s: Measure(cosine=-s, distance=s) for s in range(3)})] * 5
    assert standing_out(few) == {}


def test_wide_disagreement_widens_what_is_usual():
    """Sites of very different images: a site that would stand out among equals does not here."""
    wide = {0: (0.9, 1.0), 1: (0.1, 1.0), 2: (-0.3, 1.0), 3: (0.6, 1.0), 4: (-0.1, 1.0)}
    assert standing_out(rounds(*[wide] * 4)) == {}


def test_rounds_without_measures_do_not_count():
    assert standing_out([RoundRecord(round=0), *rounds(*[{2: (-0.6, 1.2)}] * 3)]) == {2: (3, 3)}
