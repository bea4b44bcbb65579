import open_clip
import pytest

from fedprompt.backbone.tags import agreed_preprocessing, preprocessing
from fedprompt.data.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocessing
from fedprompt.errors import BackboneError
from fedprompt.settings.backbone import BackboneConfig

STATS = {"mean": OPENAI_MEAN, "std": OPENAI_STD}


def test_preprocessing_is_read_as_open_clip_states_it() -> None:
    given = {**STATS, "size": (64, 64), "resize_mode": "longest", "fill_color": 3}
    assert preprocessing(given) == Preprocessing(size=64, resize_mode="longest", fill=3)
    assert preprocessing({**STATS, "size": 48}).size == 48


def test_inputs_that_are_not_square_or_not_known_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"\(32, 64\) is not square"):
        preprocessing({**STATS, "size": (32, 64)})
    with pytest.raises(BackboneError, match="interpolation = 'random'"):
        preprocessing({**STATS, "size": 32, "interpolation": "random"})


def test_a_site_that_holds_the_weights_in_a_file_is_told_the_servers_tag() -> None:
    assert open_clip.get_pretrained_cfg("ViT-L-14", "laion2b_s32b_b82k")["mean"][0] == 0.5
    for pretrained, preprocess, expected in (
        ("laion2b_s32b_b82k", "", "laion2b_s32b_b82k"),
        ("laion2b_s32b_b82k", "openai", "openai"),
        ("weights.pt", "openai", "openai"),
        ("weights.pt", "", ""),
    ):
        config = BackboneConfig(name="ViT-L-14", pretrained=pretrained, preprocess=preprocess)
        assert agreed_preprocessing(config) == expected
