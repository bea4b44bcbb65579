from server.run_folder.report.svg import MEAN, drawing, to_svg


def test_a_figure_becomes_inline_svg_in_the_pages_colours():
    with drawing() as axes:
        axes.plot([0, 1], [0, 1], color=MEAN)
        found = str(to_svg(axes, "name", "A <title>", 'a "description" & more'))
    assert found.startswith("<svg ")
    assert found.rstrip().endswith("</svg>")
    assert "var(--blue)" in found
    assert "A &lt;title&gt;" in found
    assert "&quot;description&quot; &amp; more" in found
    assert "<metadata" not in found
    assert 'width="' not in found.split(">", 1)[0]
