"""Summarise a finished run: what it reached, for a program and for a person."""

from pathlib import Path
from typing import Any

from fedprompt.errors import CheckpointError
from fedprompt.run_folder import RunFolder
from fedprompt.settings.prompt import CoopConfig
from fedprompt.settings.run_config import RunConfig
from server.run_folder import run_status

_KEPT = {  # what a reader must know of the artefact, by prompt.personal
    "global": "",
    "local": ", as it started: each site keeps the prompt that it tuned",
    "both": ", without the sites' own prompts, which the accuracy is with",
}
# methods whose prompt starts at the template's words, and nowhere else
_AT_WORDS = ("dip", "dip-fixed", "coop", "kgcoop", "prograd")


def summarise(folder: Path) -> dict[str, Any]:
    """Return what a finished run reached, from its own record."""
    run = RunFolder(folder)
    records = run.records()
    if not records:
        raise CheckpointError(
            f"{run.record} is gone or empty; the prompt is whole in {run.artefact}, but "
            "nothing tells how it was reached"
        )
    evaluated = [record for record in records if record.accuracy is not None]
    start = evaluated[0].accuracy if evaluated else None
    ended, last = run_status.read(folder), records[-1]
    return {
        "output": str(folder),
        "rounds": last.round,
        "start_accuracy": start,
        "zero_shot_accuracy": start if starts_at_template(run) else None,
        "accuracy": evaluated[-1].accuracy if evaluated else None,
        "worst_client_acc": evaluated[-1].worst_client_acc if evaluated else None,
        "information_density": last.information_density,
        "truncation_error": last.truncation_error,
        "bytes_up": sum(record.bytes_up for record in records),
        "bytes_down": sum(record.bytes_down for record in records),
        "strikes": {str(site): count for site, count in last.strikes.items()},
        "prompt": last.prompt,
        "personal": run.settings().get("prompt.personal", "global"),
        "artefact": ended.artefact if ended else None,
    }


def starts_at_template(run: RunFolder) -> bool:
    """Return whether a run's prompt starts at its template's words: then round 0 is zero-shot CLIP.

    With random or other words, a class name elsewhere, or prompts in the image tower, the untrained
    prompt classifies differently.
    """
    config = RunConfig.parse(run.settings())
    prompt = config.prompt
    if not isinstance(prompt, CoopConfig) or prompt.method not in _AT_WORDS:
        return False
    words = ("", config.data.template.partition("{}")[0].strip())
    return prompt.init in words and prompt.name_position == "end"


def tell(result: dict[str, Any], rounds: int) -> str:
    """Return a finished run in a few lines."""
    reached = ""
    if result["accuracy"] is not None:
        start = "untrained prompt" if result["zero_shot_accuracy"] is None else "zero-shot"
        reached = (
            f": accuracy {result['accuracy']:.1%} on the sites' held-out images "
            f"({start} {result['start_accuracy']:.1%}, "
            f"worst site {result['worst_client_acc']:.1%})"
        )
    return (
        f"{result['rounds']} of {rounds} rounds done{reached}\n"
        f"prompt {result['prompt'][:16]} in {result['output']}/artefact{_KEPT[result['personal']]}"
    )
