"""Write numbers as the page shows them; a missing one is a dash."""

NONE = "–"
_SPACE = "\u00a0"  # keeps a number and its unit in one line
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in percent."""
    return NONE if value is None else f"{100 * value:.{digits}f}{_SPACE}%"


def points(value: float | None) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    if value is None:
        return NONE
    text = f"{abs(100 * value):.1f}"
    return text if text == "0.0" else f"{'+' if value > 0 else '−'}{text}"


def size(value: float | None) -> str:
    """Return a number of bytes in the unit that suits it (1 kB = 1,000 B)."""
    if value is None:
        return NONE
    power = 0
    while abs(value) >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g}{_SPACE}{_UNITS[power]}"


def count(value: float | None) -> str:
    """Return a whole number with its thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with some digits that count."""
    return NONE if value is None else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.1f}{_SPACE}s"
    minutes = round(seconds / 60)
    return (
        f"{minutes}{_SPACE}min"
        if minutes < 90
        else f"{minutes // 60}{_SPACE}h {minutes % 60}{_SPACE}min"
    )


FILTERS = {
    function.__name__: function for function in (percent, points, size, count, number, duration)
}
