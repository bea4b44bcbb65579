from collections.abc import Callable

import open_clip
import pytest
import torch
from torch import nn

from fedprompt.backbone.checkpoint import fit_checkpoint, require_finite
from fedprompt.backbone.checkpoint_file import Weights
from fedprompt.errors import BackboneError
from tests.unit.fedprompt.backbone.test_load import IMAGES, TINY


def tiny(seed: int = 0, *, patch: int = 16, width: int = 48) -> nn.Module:
    torch.manual_seed(seed)
    vision = TINY["vision_cfg"] | {"patch_size": patch, "width": width}
    return open_clip.CLIP(**(TINY | {"vision_cfg": vision})).eval().requires_grad_(False)


def fit(change: Callable[[Weights], Weights]) -> nn.Module:
    model = tiny(1)
    fit_checkpoint(model, change(dict(tiny().state_dict())), "file.pt", "tiny")
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w,
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()},
        lambda w: {f"clip_model.{k}": v for k, v in w.items()},
        lambda w: w | {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(5),
                       "context_length": torch.tensor(77)},
        lambda w: w | {"attn_mask": torch.zeros(77, 77)},
        lambda w: w | {"logit_scale": w["logit_scale"].reshape(1)},
    ],
)  # fmt: skip
def test_weights_fit_under_other_names_and_with_books_beside_them(
    change: Callable[[Weights], Weights],
) -> None:
    found = fit(change)
    assert torch.equal(found.encode_image(IMAGES), tiny().encode_image(IMAGES))


def test_half_precision_becomes_single() -> None:
    found = fit(lambda w: {k: v.half() for k, v in w.items()})
    assert {v.dtype for v in found.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(
        found.encode_image(IMAGES), tiny().encode_image(IMAGES), atol=1e-2, rtol=0
    )


def test_missing_tensors_are_counted_and_the_first_named() -> None:
    kept = sorted(tiny().state_dict())[4:]
    with pytest.raises(BackboneError, match=r"4 of \d+ tensors are missing: .*, .*, .* and 1 more"):
        fit(lambda w: {k: w[k] for k in kept})


def test_unknown_tensors_are_counted_and_named() -> None:
    with pytest.raises(BackboneError, match=r"2 are not the model's: extra\.a, extra\.b\. Save"):
        fit(lambda w: w | {"extra.a": torch.ones(1), "extra.b": torch.ones(1)})


@pytest.mark.parametrize("other", [{"patch": 8}, {"width": 36}])
def test_another_models_weights_are_told_by_a_shape(other: dict[str, int]) -> None:
    with pytest.raises(BackboneError, match=r"other shapes, such as visual\.\S+ with \[.*another"):
        fit(lambda _: dict(tiny(**other).state_dict()))


def test_weights_of_nothing_like_it_are_another_models() -> None:
    with pytest.raises(BackboneError, match="another model's weights"):
        fit(lambda _: {"layer1.0.conv1.weight": torch.ones(3, 3)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    model = tiny()
    require_finite(model, "tiny")
    with torch.no_grad():
        model.visual.conv1.weight[0, 0, 0, 0] = value
        model.ln_final.bias[0] = value
    with pytest.raises(
        BackboneError, match=r"tiny hold .* in visual\.conv1\.weight, ln_final\.bias"
    ):
        require_finite(model, "tiny")


MATRIX = "transformer.resblocks.0.attn.in_proj_weight"


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.to_sparse(),
        lambda v: v.to("meta"),
        lambda v: torch.quantize_per_tensor(v, 0.01, 0, torch.qint8),
    ],
)
def test_tensors_that_are_no_dense_numbers_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    with pytest.raises(BackboneError, match=f"sparse, quantised or empty tensors: {MATRIX};"):
        fit(lambda w: w | {MATRIX: change(w[MATRIX])})


@pytest.mark.parametrize("kind", [torch.int8, torch.int32, torch.bool, torch.complex64])
def test_codes_are_not_read_as_weights(kind: torch.dtype) -> None:
    with pytest.raises(BackboneError, match=f"1 tensors are {kind}".replace("torch.", "")):
        fit(lambda w: w | {MATRIX: w[MATRIX].to(kind)})


@pytest.mark.parametrize("scale", [14.2857, 100.0])
def test_a_scale_that_is_no_logarithm_is_refused(scale: float) -> None:
    with pytest.raises(BackboneError, match=f"logit_scale = {scale:.4g}, .* save its logarithm"):
        fit(lambda w: w | {"logit_scale": torch.tensor(scale)})


def test_a_model_inside_another_is_said_where() -> None:
    with pytest.raises(BackboneError, match=r"stand below model\.: save"):
        fit(lambda w: {f"model.{k}": v for k, v in w.items()} | {"loss.weight": torch.ones(3)})
    with pytest.raises(BackboneError, match=r"stand below model\., ema\.: save"):
        fit(lambda w: {f"{p}.{k}": v for p in ("model", "ema") for k, v in w.items()})
