"""What the text of a class is in front of and behind its name; no torch."""


def spoken_template(template: str, length: int) -> str:
    """Return the template of a prompt of ``length`` tokens: "X X ... {} REST".

    Each X is one token whose embedding the prompt replaces; REST stands behind the name in the
    method's own template.
    """
    return " ".join(["X"] * length) + " {}" + template.partition("{}")[2]


def class_text(template: str, name: str) -> str:
    """Return the text of one class."""
    return template.replace("{}", name.replace("_", " "))
