import numpy as np
import numpy.typing as npt
import pytest

from export.fold.constants import Constants
from export.graph.class_vector_input import open_classes
from export.graph.fuse import fuse
from export.parity.reference import reference_logits
from export.runtime.providers import CPU
from export.runtime.session import start
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError


@pytest.mark.parametrize("bias", [None, -3.0])
def test_any_number_of_classes_may_be_given(
    tiny_clip: type[FrozenClip], images: npt.NDArray[np.uint8], bias: float | None
) -> None:
    clip = tiny_clip(bias=bias)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((9, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folded = fuse(clip, Constants(class_vectors=vectors[:2]))
    session = start(open_classes(folded, clip.logit_scale).SerializeToString(), [CPU])
    for count in (1, 2, 9):
        fed = {"images": images, "class_vectors": vectors[:count]}
        (found,) = session.run(["logits"], fed)
        expected = reference_logits(clip, Constants(class_vectors=vectors[:count]), images)
        assert found.shape == (len(images), count)
        assert np.abs(found - expected).max() < 1e-3


def test_a_graph_that_is_open_already_is_refused(clip: FrozenClip, constants: Constants) -> None:
    model = open_classes(fuse(clip, constants), 1.0)
    with pytest.raises(GraphError, match="no class vectors"):
        open_classes(model, 1.0)
