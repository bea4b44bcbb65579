"""Evaluation protocols by their known names."""

from fedprompt.experiments.protocols.centralised import CENTRALISED
from fedprompt.experiments.protocols.federated import FEDERATED
from fedprompt.experiments.protocols.trial import Protocol

PROTOCOLS: dict[str, Protocol] = CENTRALISED | FEDERATED

__all__ = ["PROTOCOLS", "Protocol"]
