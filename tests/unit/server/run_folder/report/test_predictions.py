"""Predictions are checked before they are shown."""

import json

import pytest

from fedprompt.errors import DataError
from server.run_folder.report.predictions import read_predictions
from tests.unit.server.run_folder.report.made_up_run import predictions


def write(folder, **changes):
    path = folder / "predictions.json"
    path.write_text(json.dumps(predictions() | changes))
    return path


def test_none_were_made(tmp_path):
    assert read_predictions(tmp_path / "predictions.json") is None


def test_what_eval_wrote_comes_back(tmp_path):
    found = read_predictions(write(tmp_path))
    assert found.zero_shot_accuracy == 0.63
    assert len(found.confusion) == len(found.classes) == 10
    assert found.samples[0].true == "T-shirt/top"


def test_only_the_accuracy_is_needed(tmp_path):
    (tmp_path / "predictions.json").write_text('{"accuracy": 0.5}')
    assert read_predictions(tmp_path / "predictions.json").samples == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": None}, "accuracy"),
        ({"confusion": [[1, 2]]}, "not 10 classes square"),
        ({"confusion": [[1] * 9] * 10}, "not 10 classes square"),
        ({"confusion": [[-1] * 10] * 10}, "confusion"),
        ({"classes": []}, "not 0 classes square"),
        ({"samples": [{"name": "a"}]}, "samples.0.true"),
        (
            {
                "samples": [
                    {
                        "name": "a",
                        "true": "b",
                        "predicted": "c",
                        "probability": 1,
                        "png": "PHN2Zz4=",
                    }
                ]
            },
            "not a PNG",
        ),
        (
            {
                "samples": [
                    {"name": "a", "true": "b", "predicted": "c", "probability": 1, "png": '"x"'}
                ]
            },
            "not base64",
        ),
    ],
)
def test_damage_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match="make it again with fedprompt eval") as caught:
        read_predictions(write(tmp_path, **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b'{"accuracy": NaN}'])
def test_a_broken_file_is_one_clear_line(tmp_path, content):
    (tmp_path / "predictions.json").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        read_predictions(tmp_path / "predictions.json")


def test_a_folder_in_its_place_is_one_clear_line(tmp_path):
    (tmp_path / "predictions.json").mkdir()
    with pytest.raises(DataError, match="could not be read"):
        read_predictions(tmp_path / "predictions.json")
