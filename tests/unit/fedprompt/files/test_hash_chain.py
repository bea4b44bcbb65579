import pytest

from fedprompt.files.hash_chain import FIRST, chained, check, raw_lines
from fedprompt.identity import sha256_bytes


def log(count: int = 3) -> bytes:
    """Return a chained log of a few lines."""
    data, before = b"", FIRST
    for number in range(count):
        line = chained({"number": number}, before)
        data, before = data + line, sha256_bytes(line.removesuffix(b"\n"))
    return data


def faults(data: bytes) -> list[str]:
    return [line.fault for line in check(raw_lines(data)) if line.fault]


def test_an_untouched_log_has_no_fault() -> None:
    lines = list(check(raw_lines(log())))
    assert [line.content for line in lines] == [{"number": number} for number in range(3)]
    assert faults(log()) == []
    assert raw_lines(b"") == []


def test_every_changed_byte_shows() -> None:
    data = log()
    for place in range(len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        lines = list(check(raw_lines(bytes(changed))))
        is_shown = any(line.fault or line.entry is None for line in lines)
        assert is_shown or "sha256" not in lines[-1].entry  # then as in earlier versions


def test_a_line_taken_out_added_or_exchanged_shows() -> None:
    first, second, third = log().splitlines(keepends=True)
    assert faults(second + third)
    assert faults(first + third)
    assert faults(first + third + second)
    assert faults(first + second + second)


def test_a_torn_line_breaks_no_chain() -> None:
    torn = log(2)[:-9]
    data = torn + b"\n" + chained({"number": 2}, sha256_bytes(torn.split(b"\n")[1]))
    lines = list(check(raw_lines(data)))
    assert [line.entry is None for line in lines] == [False, True, False]
    assert faults(data) == []


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{}", b"{", b"\xff", b"[" * 9999, b'{"number":1}'])
def test_what_is_no_line_of_a_chain_has_no_entry(raw: bytes) -> None:
    (line,) = check([raw])
    assert (line.entry, line.fault, line.content) == (None, "", {})


def test_json_has_no_word_for_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        chained({"loss": float("nan")}, FIRST)
