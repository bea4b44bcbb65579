import pytest

from fedprompt.errors import ConfigError
from server.deployment.folder import DeploymentFolder
from tests.paperwork import deployment


def test_a_folder_that_is_no_deployment_says_how_to_make_one(tmp_path):
    for look in (DeploymentFolder(tmp_path).config, DeploymentFolder(tmp_path).run_settings):
        with pytest.raises(ConfigError, match=r"holds no server.toml; make a deployment with"):
            look()


def test_the_folder_says_where_things_lie_wherever_it_was_called_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = DeploymentFolder(deployment(tmp_path / "d").path.relative_to(tmp_path))
    settings = folder.run_settings()
    assert settings["server.output"] == str(tmp_path / "d/run")
    assert settings["server.sites"] == str(tmp_path / "d/nodes.json")
    assert settings["data.class_names"] == str(tmp_path / "d/classes.json")


@pytest.mark.parametrize("line", ["server.output", "server.sites", "data.class_names"])
def test_what_the_folder_makes_is_not_set_by_hand(tmp_path, line):
    folder = DeploymentFolder(tmp_path)
    section, _, key = line.partition(".")
    folder.toml.write_text(f'[{section}]\n{key} = "x"\n')
    with pytest.raises(ConfigError, match=f"sets {line}, which is always .* remove the line"):
        folder.run_settings()


def test_two_sites_are_needed_unless_the_file_says_otherwise(tmp_path):
    folder = DeploymentFolder(tmp_path)
    folder.toml.write_text("[server]\nrounds = 4\n")
    assert (folder.run_settings()["server.min_sites"], folder.config().port) == (2, 9092)
    folder.toml.write_text("[server]\nmin_sites = 5\n")
    assert folder.run_settings()["server.min_sites"] == 5


def test_without_keys_nobody_can_tell_nodes_apart(tmp_path):
    folder = DeploymentFolder(tmp_path)
    folder.toml.write_text("[deployment]\ninsecure = true\n")
    assert folder.run_settings()["server.sites"] == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nround = 3\n", r"did you mean server.rounds\?"),
        ("[deployment]\nport = 'x'\n", "deployment.port = 'x'"),
        ("rounds = 3\n", "outside a section"),
        ("[server\n", "is not TOML"),
        ("[node]\nname = 'x'\n", "belongs to no section"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path, text, said):
    folder = DeploymentFolder(tmp_path)
    folder.toml.write_text(text)

    def look() -> None:
        folder.config()
        folder.run_settings()

    with pytest.raises(ConfigError, match=said):
        look()
