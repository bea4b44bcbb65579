"""The CLIP's own tokenizer as a file for the edge."""

from typing import Any

from export.runtime.open_vocabulary.tokenizer import FORMAT, Tokenizer
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.fingerprint import tokenizer_fingerprint
from fedprompt.errors import GraphError
from fedprompt.identity import canonical_json

# open_clip's cleaning functions, by what they are called there
_CLEANINGS = {
    "_clean_lower": "lower",
    "_clean_whitespace": "whitespace",
    "_clean_canonicalize": "canonicalize",
}


def tokenizer_file(clip: FrozenClip) -> bytes:
    """Return the file that `export.runtime.open_vocabulary.tokenizer.Tokenizer` reads.

    Raises
    ------
    GraphError
        The tokenizer is of another kind than CLIP's byte-pair encoding.
    """
    own: Any = clip.tokenizer
    kind = type(own)
    known = (kind.__module__, kind.__qualname__) == ("open_clip.tokenizer", "SimpleTokenizer")
    clean = _CLEANINGS.get(getattr(getattr(own, "clean_fn", None), "__name__", ""))
    if not known or clean is None or own.reduction_fn is not None:
        raise GraphError(
            f"the tokenizer of {clip.name or 'this backbone'} is {kind.__name__}, an open "
            "vocabulary needs CLIP's own byte-pair encoding (open_clip's SimpleTokenizer); choose "
            "another backbone, or export without --open-vocabulary"
        )
    data = canonical_json(
        {
            "format": FORMAT,
            "merges": [" ".join(pair) for pair in sorted(own.bpe_ranks, key=own.bpe_ranks.get)],
            "special": [own.decoder[token] for token in sorted(own.all_special_ids)],
            "clean": clean,
            "context_length": own.context_length,
        }
    )
    if tokenizer_fingerprint(Tokenizer.parse(data)) != clip.tokenizer_fingerprint:
        raise GraphError(
            "the tokenizer's file gives other ids than the tokenizer; this release of open_clip "
            "reads texts in another way: export without --open-vocabulary"
        )
    return data
