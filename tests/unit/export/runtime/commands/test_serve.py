from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import export.runtime.serving.run
from export.runtime import Classifier, OpenClassifier
from export.runtime.commands.serve import serve as serve_command
from export.runtime.serving.service import Service
from fedprompt.backbone.clip import FrozenClip
from fedprompt.command_line import command
from fedprompt.errors import ConfigError, FedpromptError, GraphError
from fedprompt.processes import logs
from tests.prompts import CLASSES, tuned


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Service, str, int]]:
    """What the command would run; this process's own log stays as it is."""
    found: list[tuple[Service, str, int]] = []

    def run(service: Service, host: str, port: int) -> None:
        found.append((service, host, port))
        service.close()

    monkeypatch.setattr(export.runtime.serving.run, "run", run)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    return found


def call(*arguments: object) -> None:
    result = CliRunner().invoke(command("serve", serve_command), [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def test_options_become_limits_and_the_first_call_is_paid_before(
    served: list[Any], classifier_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    monkeypatch.setattr(Classifier, "warm_up", lambda self, size: warmed.append(size))
    options = ("--megabytes", 1.5, "--pixels", 1000, "--seconds", 2, "--threads", 1)
    call(classifier_file, "--address", "[::1]:8123", *options)
    [(service, host, port)] = served
    assert (host, port) == ("::1", 8123)
    limits = service.limits
    assert (limits.max_bytes, limits.max_pixels, limits.seconds) == (1_500_000, 1000, 2.0)
    assert warmed == [limits.batch]


def test_a_bundle_is_served_in_the_version_it_names(
    served: list[Any], bundle: Path, clip: FrozenClip
) -> None:
    changed = OpenClassifier(bundle, threads=1)
    changed.add_class("owl")
    changed.save()
    call(bundle, "--threads", 1)
    service: Service = served[0][0]
    assert service.classifier.classes == (*CLASSES, "owl")
    told = service.describe()
    assert (told["classes"], told["artefact_sha256"]) == (4, tuned(clip).sha256)


def test_nobody_else_is_listened_to_by_default(served: list[Any], classifier_file: Path) -> None:
    call(classifier_file, "--threads", 1)
    assert served[0][1] == "127.0.0.1"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--address", "8080"), ConfigError),
        (("--pixels", 0), ConfigError),
        (("--megabytes", 0), ConfigError),
        (("--megabytes", "nan"), ConfigError),
        (("--megabytes", "inf"), ConfigError),
        (("--seconds", "inf"), ConfigError),
        (("--provider", "gpu"), FedpromptError),
    ],
)
def test_what_cannot_be_is_refused_before_anything_listens(
    served: list[Any], classifier_file: Path, options: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(classifier_file, *options)
    assert served == []


def test_a_file_that_is_missing_is_named(served: list[Any], tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no\.onnx"):
        call(tmp_path / "no.onnx")
