from typing import get_args

import pytest

from export.precision import Rewrite
from export.targets import TARGETS, recipe_of
from fedprompt.errors import ConfigError


def test_every_recipe_makes_the_precision_it_stands_for() -> None:
    for target in TARGETS.values():
        for precision, recipe in target.recipes.items():
            assert recipe.precision == precision
            assert recipe.rewrite in get_args(Rewrite)


def test_what_a_target_has_no_kernels_for_is_refused() -> None:
    assert recipe_of("gpu", "bf16").rewrite == "bf16"
    with pytest.raises(ConfigError, match=r"cpu has no bf16.*fp32, fp16, int8"):
        recipe_of("cpu", "bf16")
    with pytest.raises(ConfigError, match=r"'tpu' is unknown.*cpu, gpu"):
        recipe_of("tpu", "fp32")


def test_int8_for_tensorrt_has_standard_operators_and_fixed_ranges() -> None:
    assert recipe_of("gpu", "int8") == ("portable", "int8-static")


def test_a_cpu_is_given_standard_operators() -> None:
    """It runs ONNX Runtime's fused ones slower (docs/ladder.md)."""
    recipes = TARGETS["cpu"].recipes.values()
    assert {recipe.flavour for recipe in recipes} == {"portable"}
