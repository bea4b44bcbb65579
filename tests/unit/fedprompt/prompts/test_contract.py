"""What every method promises, whatever its equation: a test for each promise, over all of them.

A new method needs a line in ``SHAPES``, and in ``OWN`` where it needs settings of its own. The
tests of its equation lie in a file of its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from torch.nn import functional as F

from client import site as site_module
from client.site import Site
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.data.load import Images
from fedprompt.data.load import load as load_images
from fedprompt.errors import ArtefactError, PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts import cocoop
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.averaging import PromptAverage
from fedprompt.prompts.build import Prompt, build_prompt, is_averaged
from fedprompt.prompts.methods import METHODS, prompt_config, settings_model
from fedprompt.settings.data import DataConfig
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from fedprompt.settings.server import ServerConfig
from server.gate.verdict import Accepted
from server.merge.rules import RULES
from server.merge.strategies import STRATEGIES
from server.rounds.local_grid import LocalGrid
from server.rounds.strategy_adapter import merge
from tests.pictures import image_folder
from tests.prompts import stir, stirred
from tests.sites import client
from tests.unit.fedprompt.prompts.coupled import sent_by_vit_b16
from tests.unit.fedprompt.prompts.hosts import IMAGES, NAMES, TEMPLATE

Shapes = dict[str, tuple[int, ...]]
FORMS = ("full", "lowrank")
OWN: dict[str, dict[str, Any]] = {
    "adapt": {"domains": "ink, clay", "domain": "clay"},
    "advpt": {"tokens": 4},
    "spt": {"tokens": 4},  # at any start: its images are not here
}
CASES = {method: {"method": method, **OWN.get(method, {})} for method in METHODS} | {
    "coop, name in the middle": {"method": "coop", "name_position": "middle"},
    "coop, vectors of each class": {"method": "coop", "class_specific": True},
    "dip, words that stay": {"method": "dip", "tokens": 2},
    "maple, words that stay": {"method": "maple", "tokens": 2},
    "vpt, from block 1": {"method": "vpt", "first_layer": 1},
    "mudpt, transformer maps": {"method": "mudpt", "maps": "transformer"},
    "mudpt, frozen maps": {"method": "mudpt", "freeze_maps": True},
    "mudpt, frozen transformer maps": {
        "method": "mudpt",
        "freeze_maps": True,
        "maps": "transformer",
    },
}
EVERY = pytest.mark.parametrize(("case", "form"), [(c, f) for c in CASES for f in FORMS])


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def transformer(name: str, inputs: int, outputs: int) -> Shapes:
    norms = ("entrance", "attention_norm", "mlp_norm", "exit")
    shapes: Shapes = {f"{name}.{n}.{k}": (inputs,) for n in norms for k in ("weight", "bias")}
    shapes |= linear(f"{name}.attention", 3 * inputs, inputs)
    shapes |= linear(f"{name}.attended", inputs, inputs)
    shapes |= linear(f"{name}.widen", 4 * inputs, inputs)
    shapes |= linear(f"{name}.narrow", inputs, 4 * inputs)
    return shapes | linear(f"{name}.out", outputs, inputs)


def deep(side: str, width: int, length: int = 4, blocks: int = 3) -> Shapes:
    return {f"{side}.{i}": (length, width) for i in range(blocks)}


# in the full form, of the tests' tiny CLIP: text 32 wide, vision 48, joint 24, three blocks; and of
# five classes
BOTH = deep("text", 32) | deep("visual", 48)
CTX: Shapes = {"ctx": (4, 32)}
MAPLE = {k: s for i in range(3) for k, s in linear(f"maps.{i}", 48, 32).items()}
MUDPT = linear("maps.E", 48, 32) | linear("maps.F", 48, 32) | linear("maps.G", 32, 48)
SHAPES: dict[str, Shapes] = {
    **dict.fromkeys(("dip", "dip-fixed", "coop", "kgcoop", "prograd", "advpt"), CTX),
    **dict.fromkeys(("ivlp", "promptsrc"), BOTH),
    **dict.fromkeys(("mudpt, frozen maps", "mudpt, frozen transformer maps"), BOTH),
    **dict.fromkeys(("vpt", "spt"), deep("visual", 48)),
    "maple": deep("text", 32) | MAPLE,
    "mudpt": BOTH | MUDPT,
    "sdpt": {"prototypes": (4, 24)},
    "adapt": deep("text", 32, blocks=2) | {"visual": (2, 48)},
    "cocoop": CTX | {"narrow": (6, 24), "narrow_bias": (6,), "widen": (32, 6), "widen_bias": (32,)},
    "linear": {"weight": (5, 24), "bias": (5,)},
    "fedclip": {"hidden": (24, 24), "hidden_bias": (24,), "gate": (24, 24), "gate_bias": (24,)},
    "coop, name in the middle": CTX,
    "coop, vectors of each class": {"ctx": (5 * 4, 32)},
    "dip, words that stay": {"ctx": (2, 32)},
    "maple, words that stay": deep("text", 32, length=2) | MAPLE,
    "vpt, from block 1": deep("visual", 48, blocks=2),
    "mudpt, transformer maps": BOTH | transformer("maps.E", 32, 48) | transformer("maps.G", 48, 32),
}


def shapes_of(case: str, form: str) -> Shapes:
    """Return what travels: in form lowrank, of rank 1, factors in place of every matrix."""
    if form == "full":
        return SHAPES[case]
    found: Shapes = {}
    for name, shape in SHAPES[case].items():
        pair = {f"{name}.A": (shape[0], 1), f"{name}.B": (1, shape[-1])}
        found |= pair if len(shape) == 2 else {name: shape}
    return found


def case_takes(case: str, key: str) -> bool:
    """Return whether a case's method has a setting."""
    return key in settings_model(str(CASES[case]["method"])).model_fields


def make(clip: FrozenClip, case: str, form: str, **more: Any) -> Prompt:
    settings = {"dropout": 0.0, "seed": 5, "form": form, **CASES[case], **more}
    return build_prompt(prompt_config(**settings), clip, NAMES, TEMPLATE, any_start=True)


def moved(clip: FrozenClip, case: str, form: str, **more: Any) -> Prompt:
    prompt = make(clip, case, form, **more)
    stir(prompt)
    return prompt


def images(clip: FrozenClip, prompt: Prompt) -> EncodedImages:
    with torch.no_grad():
        features = F.normalize(clip.encode_image(IMAGES), dim=-1)
        layer = prompt.first_layer
        rows = None if layer is None else clip.image.activations(IMAGES, layer)
    return EncodedImages(features, rows)


def bits(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in sorted(arrays.items())}


def matrix(prompt: Prompt, name: str) -> np.ndarray:
    """Return P, or P0 + A B."""
    own = prompt.arrays() | prompt.frozen_arrays()
    return own[name] if name in own else own[f"{name}.start"] + own[f"{name}.A"] @ own[f"{name}.B"]


def test_every_method_is_here() -> None:
    assert {settings["method"] for settings in CASES.values()} == set(METHODS)
    assert SHAPES.keys() == CASES.keys()


@EVERY
def test_names_and_shapes_of_what_travels(clip: FrozenClip, case: str, form: str) -> None:
    prompt = make(clip, case, form)
    assert {name: array.shape for name, array in prompt.arrays().items()} == shapes_of(case, form)
    described = prompt.describe()
    assert (described["method"], described["form"]) == (CASES[case]["method"], form)
    assert described["rank"] == (form == "lowrank")


@EVERY
def test_what_is_sent_is_what_is_trained_and_no_more(
    clip: FrozenClip, case: str, form: str
) -> None:
    prompt = make(clip, case, form)
    sent = sum(array.size for array in prompt.leaving().values())
    assert sent == sum(tensor.numel() for tensor in prompt.parameters())
    others = [name for name in prompt.arrays() if name.startswith("text.0") and case == "adapt"]
    assert prompt.leaving().keys() == prompt.arrays().keys() - set(others)
    assert not prompt.arrays().keys() & prompt.frozen_arrays().keys()


# published for ViT-B/16, or our arithmetic of it (methods.md)
SENT = [
    ("coop", {"tokens": 4}, 2_048),
    ("dip", {"tokens": 4}, 516),
    ("advpt", {}, 16_384),
    ("advpt", {"form": "lowrank"}, 544),
    ("ivlp", {"tokens": 4}, 46_080),
    ("ivlp", {"tokens": 4, "form": "lowrank"}, 11_592),
    ("maple", {"tokens": 2}, 3_555_072),
    ("maple", {"tokens": 2, "form": "lowrank"}, 9 * (2 + 512 + 768 + 512 + 768)),
    ("mudpt", {"tokens": 4}, 1_227_776),
    ("mudpt", {"tokens": 4, "maps": "transformer"}, 11_079_168),
    ("mudpt", {"tokens": 4, "freeze_maps": True}, 46_080),
    ("mudpt", {"tokens": 4, "freeze_maps": True, "maps": "transformer"}, 46_080),
    ("mudpt", {"tokens": 4, "freeze_maps": True, "form": "lowrank"}, 11_592),
    ("mudpt", {"tokens": 4, "form": "lowrank"}, 11_592 + 3 * (512 + 768) + 768 + 768 + 512),
    ("sdpt", {"tokens": 4}, 2_048),
    ("sdpt", {"tokens": 4, "form": "lowrank"}, 516),
]


@pytest.mark.parametrize(("method", "config", "count"), SENT)
def test_numbers_sent_for_vit_b16(method: str, config: dict[str, Any], count: int) -> None:
    assert sent_by_vit_b16(method, **config) == count


@EVERY
def test_it_comes_back_from_its_artefact(
    clip: FrozenClip, tmp_path: Path, case: str, form: str
) -> None:
    """Bit for bit, from the files; the seed in them is the run's, not that of the start."""
    prompt = moved(clip, case, form)
    to_artefact(clip, prompt, NAMES, TEMPLATE, round=3, seed=11).save(tmp_path)
    artefact = Artefact.load(tmp_path)
    assert artefact.metadata["seed"] == 11
    assert artefact.metadata["trained"] == sorted(prompt.arrays())
    found = from_artefact(artefact, clip)
    own = {"domain"} if case == "adapt" else set()  # a site's word, which leaves no site
    assert found.describe().keys() == prompt.describe().keys() - own
    assert found.describe() == prompt.describe()
    assert bits(found.arrays()) == bits(prompt.arrays())
    assert bits(found.frozen_arrays()) == bits(prompt.frozen_arrays())
    batch = images(clip, prompt)
    assert torch.equal(found.predict(batch), prompt.predict(batch))


@EVERY
def test_an_artefact_with_a_tensor_missing_or_of_another_shape_is_refused(
    clip: FrozenClip, case: str, form: str
) -> None:
    whole = to_artefact(clip, make(clip, case, form), NAMES, TEMPLATE, round=0, seed=0)
    for name, tensor in whole.tensors.items():
        rest = {n: t for n, t in whole.tensors.items() if n != name}
        with pytest.raises(ArtefactError, match="is missing, expected"):
            from_artefact(Artefact(rest, whole.metadata), clip)
        with pytest.raises(ArtefactError, match=rf"{name} is of shape .*, expected"):
            from_artefact(Artefact(rest | {name: tensor[None]}, whole.metadata), clip)


@EVERY
def test_arrays_of_other_names_or_shapes_are_refused_and_change_nothing(
    clip: FrozenClip, case: str, form: str
) -> None:
    prompt = make(clip, case, form)
    arrays = prompt.arrays()
    name = next(iter(arrays))
    for wrong in (
        {k: a for k, a in stirred(arrays).items() if k != name},
        stirred(arrays) | {"other": arrays[name]},
        stirred(arrays) | {name: arrays[name][None]},
    ):
        with pytest.raises(PromptError, match=r"the prompt's arrays are .*, expected"):
            prompt.load_arrays(PromptState(wrong))
    assert bits(prompt.arrays()) == bits(arrays)


@pytest.mark.parametrize("case", CASES)
def test_a_rank_above_a_matrixs_rows_is_refused(clip: FrozenClip, case: str) -> None:
    with pytest.raises(PromptError, match=r"prompt\.rank = 64 is too high for a matrix of"):
        make(clip, case, "lowrank", rank=64)


@pytest.mark.parametrize("case", [c for c, s in SHAPES.items() if {"visual.1", "text.1"} & {*s}])
def test_more_blocks_than_the_towers_have_are_refused(clip: FrozenClip, case: str) -> None:
    if case == "adapt":  # whose prompts are of domains, not of blocks
        return
    blocks = 2 if case == "vpt, from block 1" else 3
    with pytest.raises(PromptError, match=rf"prompt\.depth = 4, but only {blocks} blocks can be"):
        make(clip, case, "full", depth=4)


WITHOUT = ("linear", "fedclip")  # heads without a prompt matrix refuse its loss terms


@EVERY
def test_density_is_of_the_prompts_and_not_of_maps(clip: FrozenClip, case: str, form: str) -> None:
    terms = {} if case in WITHOUT else {"density_weight": 0.7, "tail_weight": 0.3}
    prompt = moved(clip, case, form, density_k=1, **terms)
    kinds = ("ctx", "text", "visual", "prototypes", "weight", "hidden", "gate")
    names = [n for n, s in SHAPES[case].items() if n.partition(".")[0] in kinds and len(s) == 2]
    names = [name for name in names if (case, name) != ("adapt", "text.0")]  # another site's
    spectra = [np.linalg.svd(matrix(prompt, name), compute_uv=False) for name in names]
    densities = [s[0] / s.sum() for s in spectra]
    assert prompt.information_density() == pytest.approx(np.mean(densities), rel=1e-4)
    penalty = 0.3 * sum(s[1:].sum() for s in spectra) - 0.7 * sum(densities)
    expected = 0.0 if case in WITHOUT else penalty
    assert float(prompt.penalty().detach()) == pytest.approx(expected, rel=1e-4)


def zero_shot(clip: FrozenClip) -> torch.Tensor:
    """Return the template's unit class vectors from open_clip alone."""
    texts = [TEMPLATE.replace("{}", name) for name in NAMES]
    with torch.no_grad():
        return F.normalize(clip.model.encode_text(clip.tokenizer(texts)), dim=-1)


AT_WORDS = (
    "dip", "dip-fixed", "coop", "kgcoop", "prograd", "cocoop", "linear", "fedclip",
    "coop, vectors of each class", "dip, words that stay",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", AT_WORDS)
def test_round_0_is_zero_shot_clip(clip: FrozenClip, case: str, form: str) -> None:
    prompt = make(clip, case, form)
    batch = images(clip, prompt)
    expected = clip.logit_scale * batch.features @ zero_shot(clip).T
    torch.testing.assert_close(prompt.predict(batch), expected, rtol=1e-5, atol=1e-4)


TEXTS_AT_WORDS = (
    "vpt", "spt", "adapt", "ivlp", "maple", "mudpt", "promptsrc", "maple, words that stay",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", TEXTS_AT_WORDS)
def test_round_0_has_the_class_vectors_of_zero_shot_clip(
    clip: FrozenClip, case: str, form: str
) -> None:
    """Of deep prompts the first one starts at the words, the others are drawn."""
    shallow = {"depth": 1} if case_takes(case, "depth") else {}
    prompt = make(clip, case, form, **shallow)
    found = prompt.class_vectors().detach()
    torch.testing.assert_close(found, zero_shot(clip), rtol=1e-4, atol=1e-5)


@EVERY
def test_the_seed_alone_decides_the_start(clip: FrozenClip, case: str, form: str) -> None:
    def start(seed: int, noise: int) -> dict[str, bytes]:
        torch.manual_seed(noise)
        prompt = make(clip, case, form, seed=seed)
        return bits(prompt.arrays() | prompt.frozen_arrays())

    assert start(1, noise=0) == start(1, noise=1)
    assert (start(1, noise=0) == start(2, noise=0)) == _starts_at_words(case)


def _starts_at_words(case: str) -> bool:
    """Say whether nothing is drawn: whether another seed gives the same start."""
    return case.partition(",")[0] in (
        "dip", "dip-fixed", "coop", "kgcoop", "prograd", "sdpt", "linear",
    )  # fmt: skip


# --- what a federation of a site, or of sites, leaves as it was ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images"), ("cat", "dog", "owl"), 4)


@pytest.fixture(scope="module")
def grid() -> Iterator[None]:
    """Let messages be made: Flower asks which run they are of."""
    with LocalGrid(client(), 1, {}):
        yield


@pytest.fixture(autouse=True)
def _one_clip(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "shared_backbone", lambda config: clip)
    monkeypatch.setattr(cocoop, "REDUCTION", 4)  # a hidden number for every fourth: six, not one


def site(folder: Path, case: str, form: str, *, empty: bool = False, **more: object) -> Site:
    """Return a site with twelve images, or with none."""

    def own(config: DataConfig) -> Images:
        train, _ = load_images(config)
        return Images(train.subset([] if empty else range(len(train))), train.subset([]))

    settings: Flat = {"data.source": str(folder), "data.test_share": 0.0}
    settings["server.rule"] = "product"  # of every method: A and B are trained and sent
    settings |= {"fit.cache": False, "fit.batch": 4}
    prompt = {"dropout": 0.5, "seed": 5, "form": form, **CASES[case]}
    settings |= {f"prompt.{key}": value for key, value in prompt.items()}
    return Site(RunConfig.parse(settings | more), 0, own)  # type: ignore[arg-type]


def trained(one: Site, arrays: PromptState) -> PromptState:
    """Return the prompt after the site's local step: what it does not send is as it was."""
    found, _ = one.train(arrays, seed=1, server_round=1, rounds=2, mu=0.01)
    return arrays | found


def merged(replies: list[PromptState], arrays: PromptState, rule: str) -> PromptState:
    """Return what the server makes of replies of unequal weight."""
    chosen = RULES[rule]
    updates = [
        Accepted(i, 1000 + i, chosen.moved(arrays, reply, "float32"), weight, 0.5)
        for i, (reply, weight) in enumerate(zip(replies, (5, 1, 30), strict=False))
    ]
    messages = {u.node: Message(RecordDict(), u.node, "train") for u in updates}
    strategy = STRATEGIES["fedavg"](ServerConfig(strategy="fedavg"))
    return merge(strategy, chosen, arrays, updates, messages, 1, "float32").arrays


def check_same(found: PromptState, expected: PromptState) -> None:
    """Compare two prompts as products, of which there is one, within float32's rounding."""
    lift = RULES["product"].lift
    one, other = lift(found), lift(expected)
    assert one.keys() == other.keys()
    for name, dense in one.items():
        assert np.linalg.norm(dense - other[name]) <= 1e-6 * np.linalg.norm(other[name]) + 1e-9


@EVERY
def test_a_site_without_images_changes_nothing(folder: Path, case: str, form: str) -> None:
    one = site(folder, case, form, empty=True)
    arrays = stirred(one.prompt.arrays())
    found, loss = one.train(arrays, seed=1, server_round=1, rounds=2, mu=0.01)
    assert bits(arrays | found) == bits(arrays)  # adapt sends its own domain's alone
    assert found.keys() == one.prompt.leaving().keys()
    assert loss == 0.0


@EVERY
@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_rate_of_zero_and_no_steps_change_nothing(
    folder: Path, case: str, form: str, optimiser: str
) -> None:
    """At its start and away from it: the site sends what it got, and merging keeps it."""
    own = {"fit.learning_rate": 0.0, "fit.optimiser": optimiser, "fit.weight_decay": 0.1}
    one = site(folder, case, form, **own)
    start = one.prompt.arrays()
    for arrays in (start, stirred(start)):
        found = trained(one, arrays)
        assert bits(found) == bits(arrays)
        for rule in ("product", "factors"):
            check_same(merged([found] * 3, arrays, rule), arrays)
            assert merged([], arrays, rule) is arrays  # no steps at all: every site abstained


@EVERY
@pytest.mark.usefixtures("grid")
def test_sites_that_learn_the_same_are_one_site(folder: Path, case: str, form: str) -> None:
    one = site(folder, case, form, **{"fit.learning_rate": 0.05})
    arrays = one.prompt.arrays()
    reply = trained(one, arrays)
    sent = one.prompt.leaving().keys()
    changed = {name for name in arrays if not np.array_equal(reply[name], arrays[name])}
    assert changed == sent  # nothing is trained that nothing reads
    assert bits(reply) == bits(trained(one, arrays))
    for rule in ("product", "factors"):
        alone, together = merged([reply], arrays, rule), merged([reply] * 3, arrays, rule)
        check_same(alone, reply)
        check_same(together, reply)


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("case", CASES)
def test_under_a_shared_basis_too(folder: Path, case: str) -> None:
    one = site(
        folder, case, "lowrank", **{"server.rule": "shared-basis", "fit.learning_rate": 0.05}
    )
    arrays = one.prompt.arrays()
    assert not [name for name in arrays if name.endswith(".A")]
    reply = trained(one, arrays)
    assert bits(reply) != bits(arrays)
    for expected in (reply, arrays):
        found = merged([expected] * 3, arrays, "shared-basis")
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", [case for case in CASES if case != "adapt"])  # refuses it
def test_under_a_fresh_basis_too(folder: Path, case: str) -> None:
    """What a site sends, the server adds up to what the site's own prompt has become."""
    own = {"server.rule": "fresh-basis", "fit.learning_rate": 0.05}
    one = site(folder, case, "lowrank", **own)
    arrays = one.prompt.arrays()
    assert arrays.keys() == SHAPES[case].keys()  # whole matrices
    found, _ = one.train(arrays, seed=1, server_round=2, rounds=2, mu=0.01)
    matrices = {name for name, array in arrays.items() if array.ndim == 2}
    assert {n.removesuffix(".B") for n in found} == arrays.keys()
    assert {n.removesuffix(".B") for n in found if n.endswith(".B")} == matrices
    placed = RULES["fresh-basis"].place(arrays, RULES["fresh-basis"].lift(found), 2)
    for name, array in one.prompt.arrays().items():
        np.testing.assert_allclose(placed[name], array, rtol=1e-5, atol=1e-6)
        assert not np.array_equal(array, arrays[name])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", [m for m in METHODS if is_averaged(m)])
def test_the_average_of_a_run_that_stands_still_is_its_prompt(
    clip: FrozenClip, method: str, form: str
) -> None:
    arrays = moved(clip, method, form).arrays()
    average = PromptAverage(5, RULES["product"].lift)
    for step in range(1, 6):
        average.take(step, arrays)
    expected = RULES["product"].lift(arrays)
    for name, dense in average.total.items():
        np.testing.assert_allclose(dense, expected[name], rtol=1e-9)
