"""Write a bundle: both graphs, tokenizer, the first version; the manifest last, when all holds."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from export.fold.constants import Constants
from export.fold.types import Pictures
from export.graph.class_vector_input import open_classes
from export.graph.read_text_tower import read_text
from export.graph.text_encoder import text_encoder
from export.graph.validate_graph import check_model, parse_model
from export.parity.verify import verify
from export.parity.verify_bundle import VECTOR_BOUND
from export.runtime.classifier import Classifier
from export.runtime.metadata import without_path
from export.runtime.open_vocabulary.bundle import (
    CLASSIFIER,
    MANIFEST,
    TEXT_ENCODER,
    TOKENIZER,
    State,
    hashes,
    write_tensors,
)
from export.runtime.open_vocabulary.manifest import Manifest, Version
from export.runtime.open_vocabulary.text_encoder import TextEncoder
from export.targets import FP32, Recipe
from export.targets.classifier import Written, write_classifier
from export.targets.new_classes import Words, fixed_by, require_open, words_of
from export.targets.tokenizer_file import tokenizer_file
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ParityError, StorageError
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.storage import write_atomic


@dataclass(frozen=True)
class WrittenBundle:
    """Report a bundle: its classifier, and how far its class vectors lie from torch's."""

    classifier: Written
    vectors: float


def write_bundle(
    folder: Path,
    clip: FrozenClip,
    artefact: Artefact,
    images: Pictures,
    *,
    recipe: Recipe = FP32,
    force: bool = False,
) -> WrittenBundle:
    """Write a bundle's folder; without its manifest, which comes last, it is none.

    Parameters
    ----------
    folder
        Where there is no bundle yet.
    clip, artefact
        The prompt and the CLIP it was tuned for.
    images
        Real images for the comparison with torch, uint8 [images size size 3]; may be none.
    recipe
        Of the classifier: its operators, in fp32.
    force
        Write in spite of a breach of the logits' parity, and record it.

    Raises
    ------
    GraphError
        The method serves its own classes only, or tokenizer or text tower are of another kind.
    PromptError
        The method needs its prompt at every image.
    ParityError
        Logits or class vectors differ from torch's by more than their bound.
    StorageError
        The folder holds a bundle, or cannot be written.
    """
    if (folder / MANIFEST).exists():
        raise StorageError(f"{folder} holds a bundle already; give another --output folder")
    method = artefact.metadata["method"]
    prompt = from_artefact(artefact, clip)
    constants = Constants.of(prompt.fold())
    require_open(constants, method)
    words = words_of(prompt, artefact.metadata["template"])
    names = tuple(artefact.metadata["classes"])
    state = State(names, constants.class_vectors, words.templates, words.context, artefact.sha256)
    vectors = _write_text(folder, clip, words, state)
    written = write_classifier(
        folder / CLASSIFIER,
        clip,
        constants,
        names,
        images,
        artefact_sha256=artefact.sha256,
        white_level=int(artefact.metadata.get("white_level", 0)),
        recipe=recipe,
        force=force,
    )
    _open(written, clip.logit_scale, state)
    fixed = fixed_by(constants, words, method)
    write_atomic(folder / MANIFEST, _manifest(folder, artefact, state, fixed).to_json())
    return WrittenBundle(written, vectors)


def _write_text(folder: Path, clip: FrozenClip, words: Words, state: State) -> float:
    """Write tokenizer and text encoder, and return how far they lie from torch."""
    tokenizer = tokenizer_file(clip)
    model = text_encoder(read_text(clip), words.context, leading=words.leading)
    check_model(model, TEXT_ENCODER)
    graph = model.SerializeToString()
    found = TextEncoder(tokenizer, graph).vectors(state.classes, state.templates, None)
    largest = float(np.abs(found - state.vectors).max())
    if not largest <= VECTOR_BOUND:
        raise ParityError(
            f"class vectors of the text encoder differ from torch's by {largest:.3g}; expected at "
            f"most {VECTOR_BOUND:g}"
        )
    write_atomic(folder / TOKENIZER, tokenizer)
    write_atomic(folder / TEXT_ENCODER, graph)
    return largest


def _open(written: Written, scale: float, state: State) -> None:
    """Make the class vectors of a written file an input, and compare with its probes again."""
    closed = parse_model(written.path.read_bytes(), str(written.path))
    data = open_classes(closed, scale).SerializeToString()
    classifier = Classifier(data, provider="cpu")
    classifier.serve(state.classes, state.vectors)
    if not written.forced:
        verify(classifier).require()
    write_atomic(written.path, data)


def _manifest(folder: Path, artefact: Artefact, state: State, fixed: str) -> Manifest:
    name, digest = write_tensors(folder, state)
    first = Version(
        number=1,
        parent=0,
        artefact_sha256=state.artefact_sha256,
        classes=state.classes,
        templates=state.templates,
        tensors=name,
    )
    metadata = artefact.metadata
    backbone = metadata["backbone"]
    return Manifest(
        method=metadata["method"],
        fixed=fixed,
        backbone=backbone | {"name": without_path(str(backbone.get("name", "")))},
        tokenizer_sha256=metadata["tokenizer_sha256"],
        preprocessing=metadata["preprocessing"],
        white_level=int(metadata.get("white_level", 0)),
        files=hashes(folder, (CLASSIFIER, TEXT_ENCODER, TOKENIZER)) | {name: digest},
        versions=(first,),
        current=1,
        version=version("fedprompt"),
    )
