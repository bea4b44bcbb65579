import pytest

from benchmarks.subject import Subject


@pytest.fixture(scope="session")
def subject(request) -> Subject:
    """Return the tests' tiny CLIP with the classes and four test images of Fashion-MNIST."""
    return Subject(request.getfixturevalue("clip"), 4)
