from pathlib import Path

import pytest

from client.deployment.site_folder import SiteFolder
from fedprompt.errors import ConfigError
from tests.enrolled import bundle, site


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return site(tmp_path / 'a "site"', tmp_path, bundle(("cat", "dog")))


@pytest.mark.parametrize(
    "text", ['server = "nowhere"', 'server = "192.0.2.1:9092"\ninsecure = true', "poll = 0.0"]
)
def test_F17_F33_a_node_that_cannot_be_is_refused(folder: SiteFolder, text: str) -> None:
    folder.toml.write_text(f"[node]\n{text}\n")
    with pytest.raises(ConfigError, match="node"):
        folder.node()
