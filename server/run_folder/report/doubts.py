"""Say where the parts of a run's folder do not fit together, and which sites to ask about."""

from collections.abc import Sequence

from fedprompt.identity import sha256_arrays
from fedprompt.round_record import RoundRecord
from server.run_folder.report.run import Run
from server.run_folder.report.standing_out import standing_out


def doubts(run: Run) -> list[str]:
    """Return one sentence for each thing a reader should not take for granted."""
    found = []
    if run.torn:
        found.append(
            "The record ends in half a line: the run was stopped while it wrote, or is writing "
            "now. That round is left out."
        )
    if run.records and run.artefact:
        recorded = run.records[-1].prompt
        if recorded and recorded != sha256_arrays(run.artefact.trained):
            found.append("The artefact does not hold the prompt of the record's last round.")
    if run.artefact and run.predictions:
        scored = run.predictions.artefact
        if scored and scored != run.artefact.sha256:
            found.append("The predictions were made by another prompt; run fedprompt eval again.")
    return found + _sites(run.records)


def _sites(records: Sequence[RoundRecord]) -> list[str]:
    """Return a sentence for each kind of site that misbehaves, by name."""
    found = []
    if odd := standing_out(records):
        told = ", ".join(f"site {s} ({out} of {n} rounds)" for s, (out, n) in odd.items())
        found.append(
            f"The updates of {told} kept pulling away from the merged one: false labels, an attack "
            "or images of another kind. Ask there, or leave them out and compare."
        )
    for reason, told in (
        ("copied", "sent another site's update bit for bit, which was counted once"),
        ("unchanged", "returned the prompt as it came, adding nothing"),
        ("holding", "did so with over a quarter of a round's weight, which held the prompt back"),
    ):
        if sites := _with(records, reason):
            names = ", ".join(f"site {site} ({n} rounds)" for site, n in sites.items())
            found.append(f"These {told}: {names}.")
    if away := sorted({site for record in records for site in record.quarantined}):
        names = ", ".join(f"site {site}" for site in away)
        found.append(f"In quarantine for their strikes, at least for a while: {names}.")
    return found


def _with(records: Sequence[RoundRecord], reason: str) -> dict[int, int]:
    """Return in how many rounds each site had a reason of the gate."""
    rounds: dict[int, int] = {}
    for record in records:
        for site in {v.site for v in record.verdicts if reason in v.reasons}:
            if site is not None:
                rounds[site] = rounds.get(site, 0) + 1
    return dict(sorted(rounds.items()))
