from server.run_folder.trackers.tracker import figures
from tests.unit.server.run_folder.trackers.told import line


def test_the_figures_of_a_round_are_the_rounds_alone():
    assert figures(line(1, quarantined=(4,))) == {
        "accuracy": 0.6, "seconds": 0.0, "bytes_up": 0, "bytes_down": 0,
        "sites_asked": 3, "sites_accepted": 2, "sites_quarantined": 1,
    }  # fmt: skip


def test_what_merging_made_of_a_low_rank_prompt_is_told():
    told = {"change_rank": 3, "truncation_error": 0.01, "truncation_of_change": 0.25}
    assert told.items() <= figures(line(1, **told)).items()
