"""Write docs/settings.md from the settings' own definitions and comments.

Usage: python tools/settings_page.py > docs/settings.md
"""

import inspect
import re

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
    parts += [section(name, model) for name, model in SECTIONS.items()]
    return "\n".join(parts)


def section(name: str, model: type[Section]) -> str:
    """Return one section's table."""
    comments = notes(model)
    rows = [f"## [{name}]\n", f"{model.__doc__}\n", "| key | default | meaning |", "|---|---|---|"]
    for key, field in model.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        allowed = choices(field.annotation)
        meaning = "; ".join(part for part in (allowed, comments.get(key, "")) if part)
        shown = '""' if default == "" else default
        rows.append(f"| `{key}` | `{shown}` | {meaning.replace('|', 'or')} |")
    return "\n".join(rows) + "\n"


def choices(annotation: object) -> str:
    """Return the values of a Literal."""
    return ", ".join(f"`{value}`" for value in getattr(annotation, "__args__", ()))


def notes(model: type[Section]) -> dict[str, str]:
    """Return the comment of each field: behind it, or in the lines above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(model).splitlines():
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
