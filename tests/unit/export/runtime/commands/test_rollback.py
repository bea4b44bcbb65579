from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from export.runtime.commands.rollback import rollback
from export.runtime.open_vocabulary.bundle import Bundle
from fedprompt.command_line import command


def test_the_version_before_is_served_and_told(bundle: Path) -> None:
    opened = Bundle(bundle)
    opened.commit(replace(opened.state(1), vectors=-opened.state(1).vectors))
    done = CliRunner().invoke(command("rollback", rollback), [str(bundle)])
    assert done.exit_code == 0
    assert done.stdout == f"{bundle} serves version 1, 3 classes\n"
    assert Bundle(bundle).manifest.current == 1
