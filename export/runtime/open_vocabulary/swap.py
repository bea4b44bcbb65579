"""Put another tuned prompt into a deployed bundle: numpy and the text tower, no torch, no export.

A text context is all that is exchanged; low-rank factors are multiplied out, P = P0 + A B, and the
classes that the bundle serves are encoded anew. What lies in ``classifier.onnx`` itself (visual
prompts, a feature adapter) cannot be, and is refused.
"""

from pathlib import Path

import numpy as np

from export.runtime.open_vocabulary.bundle import Bundle, State, Vectors
from export.runtime.open_vocabulary.text_encoder import TextEncoder
from fedprompt.artefact import Artefact
from fedprompt.errors import ArtefactError
from fedprompt.prompt_state import products
from fedprompt.prompts.words import Layout


def swap(folder: Path, artefact: Artefact) -> int:
    """Serve an artefact's prompt from now on; return the number of the new version.

    Raises
    ------
    ArtefactError
        The artefact is for another backbone or of another method or shape, or the bundle's prompt
        is no text context alone.
    GraphError
        The bundle is damaged.
    DataError
        A class name does not fit behind the artefact's template.
    StorageError
        The folder cannot be written; what was served is served.
    """
    bundle = Bundle(folder)
    _check(bundle, artefact)
    context = _context(artefact)
    encoder = TextEncoder.of(bundle)
    if (expected := encoder.context_shape()) != context.shape:
        raise ArtefactError(
            f"the artefact's prompt has shape {list(context.shape)}, the bundle takes "
            f"{list(expected or ())}, [layers length width]; export the artefact to a new bundle"
        )
    layout = Layout.described(artefact.metadata)
    _check_layout(layout, context.shape[1], placed=encoder.is_placed)
    templates = (layout.spoken(artefact.metadata["template"]),)
    classes = bundle.state(bundle.manifest.current).classes
    vectors = encoder.vectors(classes, templates, context)
    return bundle.commit(State(classes, vectors, templates, context, artefact.sha256))


def _check(bundle: Bundle, artefact: Artefact) -> None:
    """Refuse what the bundle's graphs were not made for."""
    manifest, metadata = bundle.manifest, artefact.metadata
    if manifest.fixed:
        raise ArtefactError(f"{bundle.folder} takes no other prompt: {manifest.fixed}")
    pairs = {
        "method": (metadata["method"], manifest.method),
        "backbone": (metadata["backbone"]["sha256"], manifest.backbone["sha256"]),
        "tokenizer": (metadata["tokenizer_sha256"], manifest.tokenizer_sha256),
        "preprocessing": (metadata["preprocessing"], manifest.preprocessing),
        "white level": (metadata.get("white_level", 0), manifest.white_level),
    }
    for what, (found, expected) in pairs.items():
        if found != expected:
            raise ArtefactError(
                f"the artefact's {what} is {str(found)[:200]}, the bundle's {str(expected)[:200]}; "
                "give an artefact of the same, or export this one to a new bundle"
            )


def _check_layout(layout: Layout, length: int, *, placed: bool) -> None:
    """Refuse a prompt that stands where the bundle's text encoder puts none."""
    if layout.class_specific or layout.length != length:
        raise ArtefactError(
            f"the artefact says tokens {layout.length} and class_specific {layout.class_specific}, "
            f"its prompt has {length} rows; a bundle takes one prompt of all classes"
        )
    if (layout.leading != layout.length) != placed:
        stands = "beside the name" if placed else "in front of the name"
        raise ArtefactError(
            f"the artefact has name_position {layout.name_position}, the bundle's prompt stands "
            f"{stands}; export the artefact to a new bundle"
        )


def _context(artefact: Artefact) -> Vectors:
    """Return the text prompt [1 length width] of a context in either form."""
    try:
        dense = products(artefact.tensors)
    except ValueError as error:
        raise ArtefactError(f"the artefact's factors have no product: {error}") from None
    if dense.keys() - {"ctx", "ctx.start"} or "ctx" not in dense or dense["ctx"].ndim != 2:
        raise ArtefactError(
            f"the artefact holds {', '.join(sorted(artefact.tensors))}; expected a text context "
            "alone, ctx or ctx.start, ctx.A and ctx.B"
        )
    start = dense.get("ctx.start", np.zeros_like(dense["ctx"]))
    if start.shape != dense["ctx"].shape:
        raise ArtefactError(
            f"the artefact's start has shape {list(start.shape)}, its factors make "
            f"{list(dense['ctx'].shape)}; it is damaged"
        )
    return (start + dense["ctx"]).astype(np.float32)[None]
