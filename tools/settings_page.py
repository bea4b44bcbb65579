"""Write docs/settings.md from the settings' own definitions and comments.

Usage: python tools/settings_page.py > docs/settings.md
"""

import inspect
import re

from fedprompt.prompts.methods import METHODS, models, prompt_defaults, takers
from fedprompt.settings.run_config import SECTIONS
from fedprompt.settings.section import Section

HEAD = """# Settings

Every key of a TOML file (`[section]`, `key = value`) and of `--set section.key=value`. This page is
written by `python tools/settings_page.py > docs/settings.md`; a test compares.
"""
FIELD = re.compile(r"^    (\w+): (.+?)(?: = .*?)?(?:  # (.*))?$")


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, model in SECTIONS.items():
        parts.append(prompt_section() if name == "prompt" else section(name, model))
    return "\n".join(parts)


def prompt_section() -> str:
    """Return the table of all methods' settings, and which methods take each."""
    rows = [
        "## [prompt]\n",
        "Settings of the `[prompt]` section; a method takes those that name it.\n",
    ]
    rows += ["| key | default | methods | meaning |", "|---|---|---|---|"]
    for key in prompt_defaults():
        model = next(model for model in models() if key in model.model_fields)
        methods = takers(key)
        own = "all" if len(methods) == len(METHODS) else ", ".join(methods)
        default, meaning = row(key, model)
        rows.append(f"| `{key}` | {default} | {own} | {meaning} |")
    return "\n".join(rows) + "\n"


def section(name: str, model: type[Section]) -> str:
    """Return one section's table."""
    rows = [f"## [{name}]\n", f"{model.__doc__}\n", "| key | default | meaning |", "|---|---|---|"]
    for key in model.model_fields:
        default, meaning = row(key, model)
        rows.append(f"| `{key}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def row(key: str, model: type[Section]) -> tuple[str, str]:
    """Return a setting's default and meaning."""
    field = model.model_fields[key]
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    shown = '""' if default == "" else default
    parts = (choices(field.annotation), notes(model).get(key, ""))
    return f"`{shown}`", "; ".join(part for part in parts if part).replace("|", "or")


def choices(annotation: object) -> str:
    """Return the values of a Literal."""
    return ", ".join(f"`{value}`" for value in getattr(annotation, "__args__", ()))


def notes(model: type[Section]) -> dict[str, str]:
    """Return the comment of each field: behind it, or in the lines above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for owner in reversed(model.__mro__):
        if not issubclass(owner, Section):
            continue
        for line in inspect.getsource(owner).splitlines():
            if line.startswith("    # "):
                above.append(line.strip(" #"))
                continue
            match = FIELD.match(line)
            if match and match[1] in model.model_fields:
                found[match[1]] = match[3] or " ".join(above)
            above = []
    return found


if __name__ == "__main__":
    print(page(), end="")
