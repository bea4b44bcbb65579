import torch

from fedprompt.backbone.encoded import Encoded, EncodedImages

FEATURES = torch.eye(7)
ROWS = torch.arange(7 * 2 * 3.0).reshape(7, 2, 3)


class Computed:
    """Compute rows when they are asked for, and remember of which images."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        self.asked += chosen.tolist()
        return ROWS[chosen]


def test_a_batch_pairs_features_and_rows_of_the_same_images_in_the_order_asked() -> None:
    batch = EncodedImages(FEATURES, ROWS)[torch.tensor([5, 0, 5])]
    assert batch.features.argmax(1).tolist() == [5, 0, 5]
    assert batch.rows is not None
    assert batch.rows[:, 0, 0].tolist() == [30.0, 0.0, 30.0]
    assert len(batch) == 3


def test_only_the_rows_of_a_batch_are_computed() -> None:
    rows = Computed()
    images = EncodedImages(FEATURES, rows)
    assert rows.asked == []
    images[torch.tensor([2, 6])]
    assert rows.asked == [2, 6]


def test_a_tower_without_prompts_needs_no_rows() -> None:
    assert EncodedImages(FEATURES)[torch.tensor([1])].rows is None
    assert len(Encoded(FEATURES[:0])) == 0


def test_the_parts_are_all_images_once_in_order() -> None:
    images = EncodedImages(FEATURES)
    assert [part.tolist() for part in images.parts(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [part.tolist() for part in images.parts(7)] == [list(range(7))]
    assert len(images) == 7


def test_no_images_have_no_part() -> None:
    assert EncodedImages(FEATURES[:0]).parts(3) == []
