"""Put a run's figures, charts and tables into one page that needs nothing but itself."""

import functools
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from server.run_folder.report import charts, confusion
from server.run_folder.report.comparison import compare
from server.run_folder.report.doubts import doubts
from server.run_folder.report.formats import FILTERS, size
from server.run_folder.report.gate_events import by_reason, gate_events
from server.run_folder.report.headline import Headline, headline
from server.run_folder.report.run import Run
from server.run_folder.report.settings import hash_rows, setting_rows
from server.run_folder.report.site_rows import LEAST_SHOWN, shown_sites, site_rows

_MOST_EVENTS, _MOST_CLASSES = 200, 200  # listed; the record and the artefact hold them all


def render(run: Run, other: Run | None = None) -> str:
    """Return the page of a run, beside another one if it is given; outside text is escaped.

    Raises
    ------
    DataError
        The other run was not scored on the same images.
    """
    figures = headline(run.records, run.artefact)
    return _template().render(
        run=run,
        name=run.path.resolve().name,
        folder=shlex.quote(str(run.path)),
        figures=figures,
        comparison=compare(run, other),
        story=story(run, figures) if run.records else "",
        warnings=doubts(run),
        settings=setting_rows(run),
        hashes=hash_rows(run),
        classes=run.artefact.metadata["classes"] if run.artefact else (),
        most_classes=_MOST_CLASSES,
        **_record(run),
        **_predictions(run),
    )


def story(run: Run, figures: Headline) -> str:
    """Return what happened in a sentence or two."""
    sites = f"{figures.sites} {'site' if figures.sites == 1 else 'sites'}"
    rounds = f"{figures.rounds} {'round' if figures.rounds == 1 else 'rounds'}"
    told = f"{sites} tuned one prompt together in {rounds}."
    if not figures.rounds:
        return f"{sites} joined; no round of training is done."
    if figures.numbers is not None:
        told += f" Images stayed where they are; each site sent {figures.numbers:,} numbers a round"
        reply = figures.message_bytes
        told += f" ({size(reply)} with framing)." if reply else "."
    if run.ended is None:
        told += " The run has not ended, or was stopped."
    return told


def _record(run: Run) -> dict[str, Any]:
    records = run.records
    events = gate_events(records, shown_sites(records))
    drawn = [draw(records) for draw in charts.CHARTS] if records else []
    return {
        "accuracy_chart": charts.accuracy_chart(records),
        "charts": [chart for chart in drawn if chart],
        "sites": site_rows(records),
        "least_shown": LEAST_SHOWN,
        "reasons": by_reason(events),
        "events": events[:_MOST_EVENTS],
        "hidden_events": max(0, len(events) - _MOST_EVENTS),
    }


def _predictions(run: Run) -> dict[str, Any]:
    found = run.predictions
    if found is None or not found.confusion:
        return {"cells": None, "picture": "", "mistakes": []}
    fits = len(found.classes) <= confusion.MOST_CELLS
    return {
        "cells": confusion.shares(found.confusion) if fits else None,
        "picture": "" if fits else confusion.picture(found.confusion),
        "mistakes": confusion.frequent_mistakes(found),
    }


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("page.html")
