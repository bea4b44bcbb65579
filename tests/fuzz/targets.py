"""Every parser of bytes that come from outside, by name; one place for all fuzzers.

A target's ``feed`` gives some bytes to one parser. The error tree of `fedprompt.errors` may leave
it; anything else is a finding. To add a parser, write a module with ``feed`` and ``seeds`` and add
one line here: hypothesis (``test_targets.py``) and ``python -m tools.fuzz`` take it up.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz import (
    artefacts,
    bundles,
    checkpoints,
    configs,
    graphs,
    images,
    joining,
    manifests,
    open_bundles,
    replies,
    signatures,
)


@dataclass(frozen=True)
class Target:
    """Hold one parser, honest inputs and the size that its allocations are measured against."""

    feed: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    cap: int  # bytes: 4 times this is the most that one input may take


TARGETS = {
    "replies": Target(replies.feed, replies.seeds, replies.CAP),
    "joining": Target(joining.feed, joining.seeds, joining.CAP),
    "tensors": Target(artefacts.feed_tensors, artefacts.tensor_seeds, artefacts.CAP),
    "artefacts": Target(artefacts.feed, artefacts.seeds, artefacts.CAP),
    "prompts": Target(artefacts.feed_prompt, artefacts.seeds, artefacts.CAP),
    "checkpoints": Target(checkpoints.feed, checkpoints.seeds, checkpoints.CAP),
    "configs": Target(configs.feed, configs.seeds, configs.CAP),
    "manifests": Target(manifests.feed, manifests.seeds, manifests.CAP),
    "class-names": Target(manifests.feed_names, manifests.name_seeds, manifests.CAP),
    "graphs": Target(graphs.feed, graphs.seeds, graphs.CAP),
    "graph-metadata": Target(graphs.feed_metadata, graphs.metadata_seeds, graphs.CAP),
    "open-bundles": Target(open_bundles.feed, open_bundles.seeds, open_bundles.CAP),
    "tokenizers": Target(
        open_bundles.feed_tokenizer, open_bundles.tokenizer_seeds, open_bundles.CAP
    ),
    "signatures": Target(signatures.feed, signatures.seeds, signatures.CAP),
    "images": Target(images.feed, images.seeds, images.CAP),
    "bundles": Target(bundles.feed, bundles.seeds, bundles.CAP),
    "policies": Target(bundles.feed_policy, bundles.policy_seeds, bundles.POLICY_CAP),
}
