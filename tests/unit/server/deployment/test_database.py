import sqlite3
from contextlib import closing

from flwr.supercore import sql_mixin

from server.deployment import database


def test_the_superlinks_connections_wait(monkeypatch):
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", sql_mixin.SQLITE_PRAGMAS)
    before = dict(sql_mixin.SQLITE_PRAGMAS)
    database.be_patient(17.5)
    assert dict(sql_mixin.SQLITE_PRAGMAS) == before | {"busy_timeout": "17500"}
    with closing(sqlite3.connect(":memory:")) as connection:
        sql_mixin._set_sqlite_pragmas(connection, None)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (17500,)
