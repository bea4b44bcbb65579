import json
import stat
import threading

import pytest

from fedprompt.errors import ConfigError
from server.deployment import sites


def test_sites_are_numbered_as_they_come_and_numbers_are_never_given_again(tmp_path):
    for name in ("a", "b", "c"):
        sites.add(tmp_path, name, f"key of {name}", 10)
    assert sites.revoke(tmp_path, "b").number == 1
    again = sites.add(tmp_path, "b", "another key", 0)
    assert again.number == 3
    assert [(s.number, s.name, s.revoked) for s in sites.read(tmp_path)] == [
        (0, "a", False), (1, "b", True), (2, "c", False), (3, "b", False),
    ]  # fmt: skip


def test_nobody_is_enrolled_in_an_empty_folder(tmp_path):
    assert sites.read(tmp_path) == []
    with pytest.raises(ConfigError, match="enrolled are: none"):
        sites.revoke(tmp_path, "a")


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a" * 64, "../a", "a b", "a\n", "é"])
def test_a_name_must_be_one_a_file_can_have(tmp_path, name):
    with pytest.raises(ConfigError, match="is no name for a site"):
        sites.add(tmp_path, name, "key", 0)
    assert sites.read(tmp_path) == []


def test_a_name_is_taken_until_it_is_revoked(tmp_path):
    sites.add(tmp_path, "a", "key", 0)
    with pytest.raises(ConfigError, match="enrolled already; revoke it first"):
        sites.add(tmp_path, "a", "key 2", 0)
    sites.revoke(tmp_path, "a")
    with pytest.raises(ConfigError, match="no site 'a' is enrolled"):
        sites.revoke(tmp_path, "a")


GOOD = {"number": 0, "name": "a", "key": "k", "images": 0, "enrolled": "2026"}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"{}", b'{"sites": 1}', b'{"sites": [1]}', b"\xff", b"[" * 10**5,
        json.dumps({"sites": [GOOD | {"number": "first"}]}).encode(),
        json.dumps({"sites": [GOOD | {"number": 1}]}).encode(),
        json.dumps({"sites": [GOOD, GOOD]}).encode(),
        json.dumps({"sites": [{"number": 0}]}).encode(),
        json.dumps({"sites": [GOOD | {"revoked": "perhaps"}]}).encode(),
    ],
)  # fmt: skip
def test_damage_is_told_in_one_line_and_nothing_is_changed(tmp_path, text):
    (tmp_path / sites.NAME).write_bytes(text)
    with pytest.raises(ConfigError, match="is damaged") as refused:
        sites.add(tmp_path, "b", "key", 0)
    assert "\n" not in str(refused.value)
    assert (tmp_path / sites.NAME).read_bytes() == text


def test_many_commands_at_once_lose_nobody(tmp_path):
    threads = [
        threading.Thread(target=sites.add, args=(tmp_path, f"site-{i}", "key", 0))
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sites.read(tmp_path)
    assert [site.number for site in found] == list(range(12))
    assert len({site.name for site in found}) == 12
    assert stat.S_IMODE((tmp_path / sites.NAME).stat().st_mode) == 0o644
