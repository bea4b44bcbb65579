"""Evaluation protocols by their known names, one file each."""

from fedprompt.experiments.protocols import (
    adversarial,
    base_to_new,
    calibration,
    corruption,
    cross_dataset,
    cross_domain,
    federated_base_to_new,
    few_shot,
    multi_domain,
    personal,
)
from fedprompt.experiments.protocols.protocol import Protocol

PROTOCOLS: dict[str, Protocol] = {
    "base-to-new": base_to_new.PROTOCOL,
    "few-shot": few_shot.PROTOCOL,
    "cross-dataset": cross_dataset.PROTOCOL,
    "cross-domain": cross_domain.PROTOCOL,
    "federated-base-to-new": federated_base_to_new.PROTOCOL,
    "multi-domain": multi_domain.PROTOCOL,
    "personal": personal.PROTOCOL,
    "calibration": calibration.PROTOCOL,
    "corruption": corruption.PROTOCOL,
    "adversarial": adversarial.PROTOCOL,
}

__all__ = ["PROTOCOLS", "Protocol"]
