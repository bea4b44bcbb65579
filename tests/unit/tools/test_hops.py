from tools.hops import LIMITS, count


def test_no_story_runs_through_more_files_than_agreed() -> None:
    """A limit that a story stays below is lowered, so that it cannot grow back."""
    assert {name: len(files) for name, files in count().items()} == LIMITS
