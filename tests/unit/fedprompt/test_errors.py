from fedprompt import errors
from fedprompt.errors import FedpromptError
from fedprompt.wire import WireError

CODES = {
    "FedpromptError": 1,
    "ConfigError": 2,
    "DataError": 3,
    "BackboneError": 4,
    "PromptError": 5,
    "ArtefactError": 6,
    "CheckpointError": 7,
    "QuorumError": 8,
    "ParityError": 9,
    "ProviderError": 10,
    "GraphError": 11,
    "StorageError": 12,
    "PrivacyError": 13,
    "PolicyError": 14,
    "LinkError": 15,
    "RefusedError": 16,
}


def test_exit_codes_are_pinned_because_scripts_rely_on_them() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert found == CODES


def test_there_is_one_tree() -> None:
    assert all(issubclass(getattr(errors, name), FedpromptError) for name in CODES)
    assert issubclass(WireError, FedpromptError)
