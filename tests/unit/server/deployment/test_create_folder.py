import json
import stat
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.errors import ConfigError, DataError, StorageError
from server.deployment import create_folder, credentials, sites
from server.deployment.create_folder import server_toml
from server.deployment.folder import DeploymentFolder


def create(path, address="fed.example.org:9092", classes="healthy,ill", run=(), days=397):
    folder = DeploymentFolder(path)
    return folder, create_folder.create(folder, address, classes, dict(run), days)


def test_a_new_folder_is_whole_and_the_owners_alone(tmp_path):
    folder, names = create(tmp_path / "d")
    assert names == ("healthy", "ill")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert json.loads(folder.classes.read_bytes()) == ["healthy", "ill"]
    assert sites.read(folder.path) == []
    assert credentials.validity(folder, "fed.example.org").days == 396
    config = folder.config()
    assert (config.address, config.host, config.port) == ("fed.example.org:9092", "::", 9092)


def test_settings_of_the_run_stand_in_the_file(tmp_path):
    folder, _ = create(tmp_path / "d", run={"server.rounds": 7, "privacy.noise_multiplier": 1.5})
    settings = folder.run_settings()
    assert (settings["server.rounds"], settings["privacy.noise_multiplier"]) == (7, 1.5)


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    folder, _ = create(tmp_path / "d")
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(ConfigError, match="is not empty"):
        create(tmp_path / "d", classes="a,b")
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"address": "nowhere"}, ConfigError),
        ({"classes": "one"}, DataError),
        ({"classes": "gone.txt"}, DataError),
        ({"run": {"server.rounds": -1}}, ConfigError),
        ({"run": {"server.output": "elsewhere"}}, ConfigError),
    ],
)
def test_a_refusal_leaves_nothing_behind(tmp_path, options, kind):
    with pytest.raises(kind):
        create(tmp_path / "d", **options)
    assert not (tmp_path / "d").exists()


def test_a_place_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        create(tmp_path / "file" / "d")


def test_classes_may_come_from_a_file(tmp_path):
    (tmp_path / "classes.txt").write_text("tench\ngreat_grey owl\n")
    folder, names = create(tmp_path / "d", classes=str(tmp_path / "classes.txt"))
    assert names == ("tench", "great grey owl")
    assert folder.run_settings()["data.class_names"] == str(folder.classes.resolve())


@pytest.mark.parametrize("taken", ["server.output=x", "server.sites=x", "data.class_names=a,b"])
def test_what_the_folder_makes_cannot_be_given(taken):
    with pytest.raises(ConfigError, match="is made by the deployment folder"):
        create_folder.run_of(None, [taken])


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.integers(1, 10**6), st.booleans())
def test_the_file_says_what_was_given(text, rounds, resume):
    run = {"prompt.init": text, "server.rounds": rounds, "server.resume": resume}
    read = tomllib.loads(server_toml("[2001:db8::7]:65535", run))
    assert (read["prompt"]["init"], read["server"]["rounds"]) == (text, rounds)
    assert read["server"]["resume"] is resume
    assert read["deployment"]["address"] == "[2001:db8::7]:65535"
    assert len({read["deployment"][f"{kind}port"] for kind in ("", "control_", "metrics_")}) == 3


@pytest.mark.parametrize(
    ("dialled", "host"),
    [
        ("127.0.0.1:9092", "127.0.0.1"),
        ("127.0.0.2:9092", "127.0.0.2"),
        ("[::1]:9092", "::1"),
        ("localhost:9092", "localhost"),
        ("192.0.2.7:9092", "0.0.0.0"),  # noqa: S104 (what `init` writes)
        ("[2001:db8::7]:9092", "::"),
        ("fed.example.org:9092", "::"),
    ],
)
def test_the_address_decides_what_is_listened_on(tmp_path, dialled, host):
    folder, _ = create(tmp_path / "d", address=dialled)
    assert folder.config().host == host
    assert not credentials.validity(folder, folder.config().dialled).fault
