"""Turn a matplotlib figure into inline SVG that follows the page: its colours, fonts and names."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Drawn in these colours, which nothing else uses; the page says what they are by day and by night.
INK, FAINT, MEAN, WORST = "#010101", "#010102", "#010103", "#010104"
_VARIABLES = {INK: "--ink", FAINT: "--line", MEAN: "--blue", WORST: "--orange"}
_STYLE: Any = {  # matplotlib types every key, differently in each release
    "svg.fonttype": "none",  # text stays text, for readers, searching and the page's own font
    "svg.hashsalt": "fedprompt",  # the same run gives the same page
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.left": False,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "path.simplify_threshold": 0.5,
}


@contextmanager
def drawing() -> Iterator[Axes]:
    """Give axes to draw on, in the page's style."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 3.0), layout="constrained")
        yield figure.add_subplot()


def to_svg(axes: Axes, name: str, title: str, description: str) -> Markup:
    """Return an ``<svg>`` element.

    Parameters
    ----------
    name
        Prefix of every id, so that several can stand in one page.
    title, description
        What a screen reader says.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context(_STYLE):
        axes.get_figure(root=True).savefig(  # type: ignore[union-attr]  # it was made from one
            buffer, format="svg", transparent=True, metadata=nothing
        )
    _, _, drawn = buffer.getvalue().partition("<svg")
    _, _, body = drawn.partition(">")
    box = re.search(r'viewBox="([^"]+)"', drawn)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-labelledby="{name}-title {name}-desc" viewBox="{box[1] if box else ""}">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return Markup(head + _adapt(body, name))  # noqa: S704 (matplotlib's own, texts escaped)


def _adapt(body: str, name: str) -> str:
    """Give a drawing the page's colours and font, and ids of its own."""
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return re.sub(r">\s+<", "><", body)
