import io

from PIL import Image

from fedprompt.experiments.protocols.plots import plots
from fedprompt.experiments.protocols.table import rows
from tests.unit.fedprompt.experiments.protocols.test_table import RESULTS, result


def test_plots_show_whom_they_can():
    with_new = [result("dip", 0, base_acc=0.5, new_acc=0.4), result("zero", 0, 0, base_acc=0.3)]
    drawn = plots(rows(with_new), "base_acc")
    assert sorted(drawn) == ["accuracy_against_sent.png", "base_against_new.png"]
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    assert list(plots(rows(RESULTS), "base_acc")) == ["accuracy_against_sent.png"]
    assert plots(rows(RESULTS), "unknown") == {}


def test_a_plot_is_a_picture_of_a_size_that_fits_a_page() -> None:
    drawn = plots(rows(RESULTS), "base_acc")["accuracy_against_sent.png"]
    assert Image.open(io.BytesIO(drawn)).size == (960, 660)
