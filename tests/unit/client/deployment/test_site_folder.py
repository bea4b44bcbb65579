import tomllib
from pathlib import Path

import pytest

from client.deployment import site_folder
from client.deployment.policy import Policy
from client.deployment.site_folder import SiteFolder
from fedprompt.errors import ConfigError
from fedprompt.settings.run_config import defaults
from tests.enrolled import invitation, rule, site

CLASSES = ("cat", "dog")


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return site(tmp_path / "north", tmp_path / 'photos "of" 2026', invitation(CLASSES))


def test_only_the_owner_can_read_what_joining_writes(folder: SiteFolder) -> None:
    assert folder.path.stat().st_mode & 0o777 == 0o700
    files = list(folder.path.iterdir())
    assert len(files) == 7
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_what_is_written_is_what_is_read(folder: SiteFolder, tmp_path: Path) -> None:
    made = folder.invitation()
    node = folder.node()
    assert (node.name, node.number, node.server) == ("north", 3, made.address)
    settings = folder.settings(defaults())
    assert settings["data.source"] == str(tmp_path / 'photos "of" 2026')
    assert settings["data.class_names"] == str(folder.classes.resolve())
    assert settings["backbone.name"] == "embedded-cnn"
    assert folder.class_list() == CLASSES
    policy = Policy.read(folder.policy)
    assert (policy.servers, policy.methods) == ((made.address,), ("dip",))
    assert set(tomllib.loads(folder.policy.read_text())) == set(Policy.model_fields)


def test_the_key_stands_in_its_own_file_only(folder: SiteFolder) -> None:
    secret = folder.key.read_text().splitlines()[2]
    holders = [file for file in folder.path.iterdir() if secret in file.read_text()]
    assert holders == [folder.key]


def test_joining_again_overwrites_nothing_and_mends_what_is_lost(
    folder: SiteFolder, tmp_path: Path
) -> None:
    rule(folder, "min_sites", "7")
    found = folder.invitation()
    folder.revocations.unlink()
    before = {file: file.read_bytes() for file in folder.path.iterdir()}
    site_folder.create(folder, found, "elsewhere")
    assert {file: file.read_bytes() for file in before} == before
    assert folder.revocations.exists()


def test_another_sites_invitation_is_refused_and_changes_nothing(folder: SiteFolder) -> None:
    before = {file: file.read_bytes() for file in folder.path.iterdir()}
    with pytest.raises(ConfigError, match="another site's key; nothing was changed"):
        site_folder.create(folder, invitation(CLASSES), "elsewhere")
    same_key = invitation(CLASSES, key=folder.key.read_text())
    with pytest.raises(ConfigError, match="certificate of another deployment"):
        site_folder.create(folder, same_key, "elsewhere")
    assert {file: file.read_bytes() for file in folder.path.iterdir()} == before


def test_a_folder_that_join_did_not_make_is_told_from_one_it_did(tmp_path: Path) -> None:
    for ask in (SiteFolder(tmp_path).invitation, SiteFolder(tmp_path).node):
        with pytest.raises(ConfigError, match="join"):
            ask()
    with pytest.raises(ConfigError, match="damaged"):
        SiteFolder(tmp_path).class_list()


def test_the_example_is_what_joining_writes() -> None:
    example = Path(__file__).parents[4] / "examples" / "site-policy.toml"
    made = site_folder.policy_toml(invitation(CLASSES, address="fed.example.org:9092"))
    assert example.read_text(encoding="utf-8").endswith(made)


@pytest.mark.parametrize("key", ["server.rounds = 3", 'prompt.method = "coop"', "fit.epochs = 9"])
def test_a_site_cannot_set_what_is_the_servers(folder: SiteFolder, key: str) -> None:
    section, _, line = key.partition(".")
    lines = [text for text in folder.toml.read_text().splitlines() if not text.startswith("[fit]")]
    folder.toml.write_text("\n".join([*lines, f"[{section}]", line]).replace("threads = 1", ""))
    with pytest.raises(ConfigError, match="is the server's to set"):
        folder.settings(defaults())


@pytest.mark.parametrize(
    "text", ['server = "nowhere"', 'server = "192.0.2.1:9092"\ninsecure = true', "poll = 0.0"]
)
def test_F17_F33_a_node_that_cannot_be_is_refused(folder: SiteFolder, text: str) -> None:
    folder.toml.write_text(f"[node]\n{text}\n")
    with pytest.raises(ConfigError, match="node"):
        folder.node()
