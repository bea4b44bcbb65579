import json
import threading
from dataclasses import asdict

import pytest

from fedprompt.errors import PrivacyError, StorageError
from fedprompt.identity import canonical_json, sha256_bytes
from server.merge.privacy.ledger import Release, append, read


def release(server_round=1):
    return Release("run", server_round, 4, 1.0, 2.0)


def test_no_ledger_is_no_release(tmp_path):
    assert read(tmp_path / "privacy.jsonl") == []


def test_what_is_appended_is_read(tmp_path):
    path = tmp_path / "new" / "privacy.jsonl"
    for number in (1, 2, 3):
        append(path, release(number), lambda _: None)
    assert read(path) == [release(1), release(2), release(3)]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert len({line["sha256"] for line in lines}) == 3


def test_equal_releases_are_two_lines(tmp_path):
    path = tmp_path / "privacy.jsonl"
    append(path, release(), lambda _: None)
    append(path, release(), lambda _: None)
    assert read(path) == [release(), release()]


def test_a_refusal_leaves_the_ledger_as_it_was(tmp_path):
    path = tmp_path / "privacy.jsonl"
    append(path, release(), lambda _: None)

    def refuse(releases):
        assert releases == [release(1), release(2)]
        raise PrivacyError("spent")

    with pytest.raises(PrivacyError, match="spent"):
        append(path, release(2), refuse)
    assert read(path) == [release(1)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"[1]\n" + data,
        lambda data: b"{}\n",
        lambda data: data + b"{",
        lambda data: data.replace(b'"sites":4', b'"sites":9'),
        lambda data: data + data,  # the same line again is not a successor of itself
        lambda data: b"\xff\xfe",
    ],
)
def test_every_damage_is_found(tmp_path, damage):
    path = tmp_path / "privacy.jsonl"
    append(path, release(), lambda _: None)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PrivacyError, match=r"is damaged: .* start in another server\.output"):
        read(path)


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        append(tmp_path / "file" / "privacy.jsonl", release(), lambda _: None)


def earlier_version(*releases: Release) -> bytes:
    """Return a ledger whose hashes cover the hash before and the release."""
    lines, seal = [], ""
    for each in releases:
        entry = asdict(each)
        seal = sha256_bytes(seal.encode() + canonical_json(entry))
        lines.append(canonical_json(entry | {"sha256": seal}) + b"\n")
    return b"".join(lines)


def test_a_ledger_of_an_earlier_version_is_read_and_continued(tmp_path):
    path = tmp_path / "privacy.jsonl"
    before = earlier_version(release(1), release(2))
    path.write_bytes(before)
    assert read(path) == [release(1), release(2)]
    append(path, release(3), lambda _: None)
    assert path.read_bytes().startswith(before)
    assert read(path) == [release(1), release(2), release(3)]
    path.write_bytes(before.replace(b'"round":1', b'"round":9'))
    with pytest.raises(PrivacyError, match="line 1: it, or a line before it, was changed"):
        read(path)


def test_servers_in_one_folder_do_not_lose_each_others_releases(tmp_path):
    path = tmp_path / "privacy.jsonl"

    def spend(worker):
        for number in range(10):
            append(path, release(100 * worker + number), lambda _: None)

    threads = [threading.Thread(target=spend, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found.round for found in read(path)) == sorted(
        100 * worker + number for worker in range(4) for number in range(10)
    )
