import base64
import re

import pytest

from fedprompt.data.emoji_vendors import CATALOGUE, VENDORS

SUFFIXES = (".png", ".png", ".webp")


@pytest.mark.parametrize(
    ("codes", "files"),
    [
        ("1f34e", ["1f34e.png", "1f34e.png", "1f34e.webp", "1f34e.png"]),
        ("2600-fe0f", ["2600-fe0f.png", "2600-fe0f.png", "2600-fe0f.webp", "2600.png"]),
        (
            "1f441-fe0f-200d-1f5e8-fe0f",
            [*(f"1f441-fe0f-200d-1f5e8-fe0f{s}" for s in SUFFIXES), "1f441-1f5e8.png"],
        ),
    ],
)
def test_file_names(codes: str, files: list[str]) -> None:
    assert [vendor.file(codes) for vendor in VENDORS] == files


def test_the_first_vendor_has_the_catalogue() -> None:
    assert CATALOGUE in VENDORS[0].extra


def test_every_vendor_is_pinned_and_open() -> None:
    assert len({vendor.name for vendor in VENDORS}) == len(VENDORS) >= 3
    for vendor in VENDORS:
        kind, _, digest = vendor.package.integrity.partition("-")
        assert (kind, len(base64.b64decode(digest, validate=True))) == ("sha512", 64)
        assert re.fullmatch("[0-9a-f]{64}", vendor.sha256)
        assert re.search(r"CC-BY 4\.0|Apache License 2\.0|MIT licence", vendor.credit)
        assert vendor.papers
        text = f"{vendor.package.name} {vendor.folder} {vendor.credit}".lower()
        assert "apple" not in text
        assert "facebook" not in text
        assert vendor.package.name != "emoji-datasource"  # its archive has Apple's drawings too
