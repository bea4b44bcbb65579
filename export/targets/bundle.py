"""Write a bundle: both graphs, tokenizer, the first version; the manifest last, when all holds.

A bundle takes new class names and new prompts where it is deployed (`export.runtime`).
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export.fold.constants import Constants
from export.fold.load import RealImages
from export.fold.types import Pictures, TextTokens
from export.graph.builder import parse_model, serialise
from export.graph.fuse import class_vector_input
from export.graph.read_tower import as_array
from export.graph.text_encoder import read_text_tower, text_encoder
from export.parity.verify import require_vectors, verify
from export.precision import FP32, Recipe
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
from export.runtime.open_vocabulary.tokenizer import FORMAT, Tokenizer
from export.targets.classifier import Content, Conversion, Exported, convert
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.fingerprint import tokenizer_fingerprint
from fedprompt.errors import GraphError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.build import Prompt
from fedprompt.prompts.prompted import PromptedClip
from fedprompt.prompts.template import Template
from fedprompt.storage import write_atomic

# open_clip's cleaning functions, by their names there
_CLEANINGS = {
    "_clean_lower": "lower",
    "_clean_whitespace": "whitespace",
    "_clean_canonicalize": "canonicalize",
}


@dataclass(frozen=True, eq=False)
class ClassTexts:
    """How a class name becomes a text.

    Attributes
    ----------
    templates
        Texts with ``{}`` for the name; of several the mean of their vectors counts.
    context
        Tokens in place of the X beside the name; None = words alone.
    leading
        All of them stand in front of the name.
    """

    templates: tuple[str, ...]
    context: TextTokens | None = None
    leading: bool = True


def export_bundle(
    folder: Path,
    artefact: Artefact,
    clip: FrozenClip,
    pictures: Pictures,
    recipe: Recipe = FP32,
    *,
    force: bool = False,
) -> Exported:
    """Write a bundle's folder; without its manifest, which comes last, it is none.

    Parameters
    ----------
    folder
        Where there is no bundle yet.
    artefact, clip
        The prompt and the CLIP it was tuned for.
    pictures
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
    content = Content.of(artefact, clip)
    require_open(content.constants, method)
    texts = class_texts(from_artefact(artefact, clip), artefact.metadata["template"])
    state = State(
        content.classes,
        content.constants.class_vectors,
        texts.templates,
        texts.context,
        artefact.sha256,
    )
    difference = _write_text(folder, clip, texts, state)
    images = RealImages(pictures=pictures, labels=None, calibration=pictures[:0])
    conversion = convert(content, images, recipe, force=force)
    path = folder / CLASSIFIER
    write_atomic(path, _open(conversion, clip.logit_scale, state))
    fixed = fixed_by(content.constants, texts, method)
    write_atomic(folder / MANIFEST, _manifest(folder, artefact, state, fixed).to_json())
    return Exported(
        place=folder, path=path, conversion=conversion, class_vector_difference=difference
    )


def _write_text(folder: Path, clip: FrozenClip, texts: ClassTexts, state: State) -> float:
    """Write tokenizer and text encoder, and return how far they lie from torch."""
    tokenizer = tokenizer_file(clip)
    graph = text_encoder(read_text_tower(clip), texts.context, leading=texts.leading)
    data = serialise(graph, TEXT_ENCODER)
    vectors = TextEncoder(tokenizer, data).vectors(state.classes, state.templates, None)
    difference = float(np.abs(vectors - state.vectors).max())
    require_vectors(difference)
    write_atomic(folder / TOKENIZER, tokenizer)
    write_atomic(folder / TEXT_ENCODER, data)
    return difference


def _open(conversion: Conversion, scale: float, state: State) -> bytes:
    """Make the class vectors of a classifier an input, and compare with its probes again."""
    model = parse_model(conversion.data, CLASSIFIER)
    data: bytes = class_vector_input(model, scale).SerializeToString()
    classifier = Classifier(data, provider="cpu")
    classifier.serve(state.classes, state.vectors)
    if not conversion.forced:
        verify(classifier).require()
    return data


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


def class_texts(prompt: Prompt, template: str) -> ClassTexts:
    """Return the texts of a prompt tuned with a template.

    Raises
    ------
    GraphError
        Each class has a text prompt of its own, so that a new one would have none.
    """
    if isinstance(prompt, Template):
        return ClassTexts(prompt.templates)
    context = prompt.text_prompt() if isinstance(prompt, PromptedClip) else None
    layout = prompt.layout if isinstance(prompt, PromptedClip) else None
    if context is None or layout is None:
        return ClassTexts((template,))
    if layout.class_specific:
        raise _closed(
            "prompt.class_specific = true", "each class it was tuned for has vectors of its own"
        )
    leading = layout.leading == layout.length
    return ClassTexts((layout.spoken(template),), as_array(context), leading)


def require_open(constants: Constants, method: str) -> None:
    """Refuse a prompt that has no vector for a new class.

    Raises
    ------
    GraphError
        Says why.
    """
    reason = ""
    if constants.bias is not None:
        reason = "it has a weight and a bias of its own for each class it was tuned for"
    elif constants.mixture is not None:
        reason = "each image mixes the class vectors of several domains, not of one text prompt"
    if reason:
        raise _closed(f"prompt.method = {method}", reason)


def _closed(setting: str, reason: str) -> GraphError:
    return GraphError(
        f"{setting} has no open vocabulary: {reason}; export without --open-vocabulary, or tune a "
        "text prompt of all classes such as dip"
    )


def fixed_by(constants: Constants, texts: ClassTexts, method: str) -> str:
    """Return why a bundle takes no other prompt of its kind, or nothing where it does."""
    inside = "which is inside classifier.onnx; export the artefact to a new bundle"
    if constants.visual is not None:
        return f"{method} prompts the image tower as well, {inside}"
    if constants.adapter is not None:
        return f"{method} tunes a feature adapter, {inside}"
    if texts.context is None:
        return f"{method} has no text prompt that could be exchanged"
    return ""


def tokenizer_file(clip: FrozenClip) -> bytes:
    """Return the file that `export.runtime.open_vocabulary.tokenizer.Tokenizer` reads.

    Raises
    ------
    GraphError
        The tokenizer is of another kind than CLIP's byte-pair encoding.
    """
    tokenizer: Any = clip.tokenizer
    kind = type(tokenizer)
    known = (kind.__module__, kind.__qualname__) == ("open_clip.tokenizer", "SimpleTokenizer")
    clean = _CLEANINGS.get(getattr(getattr(tokenizer, "clean_fn", None), "__name__", ""))
    if not known or clean is None or tokenizer.reduction_fn is not None:
        raise GraphError(
            f"the tokenizer of {clip.name or 'this backbone'} is {kind.__name__}, an open "
            "vocabulary needs CLIP's own byte-pair encoding (open_clip's SimpleTokenizer); choose "
            "another backbone, or export without --open-vocabulary"
        )
    ranks = tokenizer.bpe_ranks
    data = canonical_json(
        {
            "format": FORMAT,
            "merges": [" ".join(pair) for pair in sorted(ranks, key=ranks.__getitem__)],
            "special": [tokenizer.decoder[i] for i in sorted(tokenizer.all_special_ids)],
            "clean": clean,
            "context_length": tokenizer.context_length,
        }
    )
    if tokenizer_fingerprint(Tokenizer.parse(data)) != clip.tokenizer_fingerprint:
        raise GraphError(
            "the tokenizer's file gives other ids than the tokenizer; this release of open_clip "
            "reads texts in another way: export without --open-vocabulary"
        )
    return data
