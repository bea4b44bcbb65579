"""Count the numbers that every prompt method trains and sends on a given backbone."""

from dataclasses import asdict, dataclass
from typing import Any

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.weightless import weightless_backbone
from fedprompt.data.classes import configured_names
from fedprompt.data.emoji_vendors import VENDORS
from fedprompt.data.fashion_mnist import CLASSES
from fedprompt.errors import BackboneError, PromptError
from fedprompt.prompts.build import build_prompt, recipe_of
from fedprompt.prompts.methods import METHODS, UNTRAINED, ZERO_SHOT_SOURCE, applicable
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat, section

_HEADER = ("method", "host", "form", "trained", "sent", "source")


@dataclass(frozen=True)
class Listed:
    """Hold one line of the list.

    Attributes
    ----------
    trained, sent
        Numbers that a site tunes, and that travel each round; None with a ``note`` that says why
        the method cannot be had with this backbone and configuration.
    """

    method: str
    host: str
    form: str
    source: str
    trained: int | None
    sent: int | None
    note: str = ""


def list_methods(flat: Flat) -> tuple[dict[str, Any], str]:
    """Return every method with its counts, for a program and for a person."""
    clip = weightless_backbone(section(flat, "backbone", BackboneConfig))
    classes = _classes(section(flat, "data", DataConfig))
    found = [listed(method, flat, clip, classes) for method in (*METHODS, *UNTRAINED)]
    result = {"backbone": clip.name, "classes": len(classes), "methods": [*map(asdict, found)]}
    return result, f"{clip.name}, {len(classes)} classes\n{table(found)}"


def listed(method: str, flat: Flat, clip: FrozenClip, classes: tuple[str, ...]) -> Listed:
    """Return one method's line; the configuration's other prompt settings apply to it."""
    source = METHODS[method].source if method in METHODS else ZERO_SHOT_SOURCE
    usual = "" if method in UNTRAINED else recipe_of(method).form
    own: Flat = {"prompt.method": method, "prompt.public": ""}  # no image changes a count
    run = RunConfig.parse(applicable(_with_domains(flat) | own))
    form = run.prompt.form or usual
    try:
        prompt = build_prompt(
            run.prompt,
            clip,
            classes,
            run.data.template,
            rule=run.server.rule,
            any_start=True,
        )
    except (BackboneError, PromptError) as error:
        return Listed(method, "", form, source, None, None, str(error))
    about = prompt.describe()
    form = form or about["form"]
    trained = sum(tensor.numel() for tensor in prompt.parameters() if tensor.requires_grad)
    sent = sum(array.size for array in prompt.leaving().values())
    return Listed(method, about["host"], form, source, trained, sent)


def _with_domains(flat: Flat) -> Flat:
    """Name a site's domain, among the configured ones or those of the emoji: it is of no matter."""
    named = str(flat.get("prompt.domains", "")).strip() or ", ".join(v.name for v in VENDORS)
    return flat | {"prompt.domains": named, "prompt.domain": named.split(",")[0].strip()}


def table(found: list[Listed]) -> str:
    """Return aligned lines, and under them why a method is not counted."""
    rows = [_HEADER] + [
        (one.method, one.host, one.form, _number(one.trained), _number(one.sent), one.source)
        for one in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    right = {_HEADER.index("trained"), _HEADER.index("sent")}
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines + [f"{one.method}: {one.note}" for one in found if one.note])


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _classes(data: DataConfig) -> tuple[str, ...]:
    """Return the configured names, else the ten of the default source: no image is looked at."""
    return configured_names(data.class_names) if data.class_names.strip() else CLASSES
