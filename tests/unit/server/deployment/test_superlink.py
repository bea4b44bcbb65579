import socket
import sqlite3
from contextlib import closing

import pytest
from flwr.supercore import sql_mixin
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME

from fedprompt.errors import FedpromptError
from server.deployment import superlink
from tests.paperwork import deployment


def test_keys_and_certificates_are_on_and_the_control_api_is_on_loopback(tmp_path):
    folder = deployment(tmp_path / "d")
    options = superlink.options(folder, folder.config())
    assert options[:4] == ["--host", "127.0.0.1", "--port", "9093"]
    assert "--enable-supernode-auth" in options
    assert "--disable-runtime-dependency-installation" in options
    assert str(folder.certificate) in options
    assert "--insecure" not in options


def test_F17_plaintext_has_no_certificates_and_keeps_nothing(tmp_path):
    folder = deployment(tmp_path / "d")
    options = superlink.options(folder, folder.config().model_copy(update={"insecure": True}))
    assert options[-3:] == ["--insecure", "--database", FLWR_IN_MEMORY_DB_NAME]
    assert not any("ssl" in option for option in options)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FedpromptError, match=f"127.0.0.1:{port} cannot be listened on"):
            superlink._listen("127.0.0.1", port)


def test_an_ipv6_address_is_named_in_brackets():
    with pytest.raises(FedpromptError, match=r"\[2001:db8::7\]:9092 cannot be listened on"):
        superlink._listen("2001:db8::7", 9092)


def test_the_superlinks_connections_wait(monkeypatch):
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", sql_mixin.SQLITE_PRAGMAS)
    before = dict(sql_mixin.SQLITE_PRAGMAS)
    superlink.set_busy_timeout(17.5)
    assert dict(sql_mixin.SQLITE_PRAGMAS) == before | {"busy_timeout": "17500"}
    with closing(sqlite3.connect(":memory:")) as connection:
        sql_mixin._set_sqlite_pragmas(connection, None)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (17500,)
