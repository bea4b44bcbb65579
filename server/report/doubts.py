"""Say where the parts of a run's folder do not fit together."""

from fedprompt.identity import sha256_arrays
from server.report.run_folder import RunFolder, trained_arrays


def doubts(run: RunFolder) -> list[str]:
    """Return one sentence for each thing a reader should not take for granted."""
    found = []
    if run.torn:
        found.append(
            "The record ends in half a line: the run was stopped while it wrote, or is writing "
            "now. That round is left out."
        )
    if run.lines and run.artefact:
        recorded = run.lines[-1].prompt
        if recorded and recorded != sha256_arrays(trained_arrays(run.artefact)):
            found.append("The artefact does not hold the prompt of the record's last round.")
    if run.artefact and run.predictions:
        scored = run.predictions.artefact
        if scored and scored != run.artefact.sha256:
            found.append("The predictions were made by another prompt; run fedprompt eval again.")
    return found
