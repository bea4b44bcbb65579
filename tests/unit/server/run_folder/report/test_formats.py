import pytest

from server.run_folder.report import formats


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("percent", 0.4126, "41.3 %"), ("percent", None, "–"), ("percent", 1.0, "100.0 %"),
        ("points", 0.138, "+13.8"), ("points", -0.02, "−2.0"), ("points", -0.0001, "0.0"),
        ("points", None, "–"),
        ("size", 0, "0 B"), ("size", 999, "999 B"), ("size", 999.6, "1 kB"),
        ("size", 2310, "2.31 kB"), ("size", 117e9, "117 GB"), ("size", 5e18, "5e+03 PB"),
        ("size", None, "–"),
        ("count", 1234567, "1,234,567"), ("count", None, "–"),
        ("number", 0.123456, "0.1235"), ("number", 0.0, "0"), ("number", None, "–"),
        ("duration", 3.21, "3.2 s"), ("duration", 125, "2 min"), ("duration", 7300, "2 h 2 min"),
    ],
)  # fmt: skip
def test_formats(name, value, text):
    assert formats.FILTERS[name](value).replace("\u00a0", " ") == text
