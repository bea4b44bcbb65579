"""The list of enrolled nodes, as the SuperLink writes it."""

import json

import pytest

from fedprompt.errors import ConfigError
from server.joining.enrolment import Enrolment, enrolments, objection

SITE = {"number": 3, "name": "st-mary", "images": 40, "node": 2**63 + 5, "online": True}


def test_nodes_are_found_by_their_id(tmp_path):
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps({"sites": [SITE]}))
    assert enrolments(path) == {2**63 + 5: Enrolment(3, "st-mary", 40)}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sites": [{"number": 1}]}', '{"sites": 3}'])
def test_a_damaged_list_admits_nobody(tmp_path, text):
    path = tmp_path / "nodes.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"server\.sites: .* lists no enrolled sites"):
        enrolments(path)
    with pytest.raises(ConfigError, match="flower-server start"):
        enrolments(tmp_path / "absent.json")


def test_a_key_speaks_for_one_site():
    listed = {7: Enrolment(3, "st-mary", 0)}
    assert objection(listed, 7, 3) == ""
    assert "enrolled as site 3 (st-mary), it says 4" in objection(listed, 7, 4)
    assert "not enrolled" in objection(listed, 8, 3)
