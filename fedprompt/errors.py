"""The one error tree: a message says what was found, what was expected and what to do."""


class FedpromptError(Exception):
    """Stop with a clear line and a stable exit code."""

    exit_code = 1


class ConfigError(FedpromptError):
    """Refuse a configuration: unknown key, wrong type or a value out of range."""

    exit_code = 2


class DataError(FedpromptError):
    """Refuse images, labels or class names."""

    exit_code = 3


class BackboneError(FedpromptError):
    """Refuse a CLIP that cannot be loaded, hashed or prompted."""

    exit_code = 4


class PromptError(FedpromptError):
    """Refuse a prompt: rank, length or tensors that do not fit."""

    exit_code = 5


class ArtefactError(FedpromptError):
    """Refuse a prompt artefact: missing file, wrong hash or unsafe content."""

    exit_code = 6


class CheckpointError(FedpromptError):
    """Refuse a checkpoint that is damaged or belongs to another run."""

    exit_code = 7


class QuorumError(FedpromptError):
    """Stop a run because too few sites answered."""

    exit_code = 8


class ParityError(FedpromptError):
    """Refuse to write a graph that differs from torch by more than its bound."""

    exit_code = 9


class ProviderError(FedpromptError):
    """Refuse a missing, doubled or silently replaced ONNX Runtime provider."""

    exit_code = 10


class GraphError(FedpromptError):
    """Refuse an ONNX file that is unsafe, broken, or not what was signed."""

    exit_code = 11


class StorageError(FedpromptError):
    """Report a disk that is full or may not be written; the old file stays whole."""

    exit_code = 12


class PrivacyError(FedpromptError):
    """Stop before a release: the privacy budget is spent, or its ledger cannot be trusted."""

    exit_code = 13


class PolicyError(FedpromptError):
    """Refuse what a site's own policy forbids; names the rule and nothing of the site's data."""

    exit_code = 14


class LinkError(FedpromptError):
    """Refuse a server that cannot be reached, or whose certificate cannot be trusted."""

    exit_code = 15


class RefusedError(FedpromptError):
    """Stop because the server refuses this site's key."""

    exit_code = 16
