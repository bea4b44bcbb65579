import re
import subprocess
import sys

import pytest

from server.merge.privacy.accountant import ACCOUNTANT, epsilon


def test_nothing_released_costs_nothing():
    assert epsilon([], 1e-5) == 0


@pytest.mark.parametrize(
    ("noise", "count", "expected"),
    # solved from the exact delta of the Gaussian mechanism (arXiv 1805.06530), to six digits
    [(1.0, 1, 4.37718), (1.0, 10, 17.8566), (8.0, 1000, 23.9954)],
)
def test_gaussian_releases_cost_what_theory_says(noise, count, expected):
    assert epsilon([noise] * count, 1e-5) == pytest.approx(expected, rel=1e-4)


def test_releases_of_unequal_noise_add_up_in_any_order():
    # n releases of noise z are one of noise z / sqrt(n): 2 and 2 cost what sqrt(2) does
    assert epsilon([2.0, 2.0, 1.0], 1e-5) == epsilon([1.0, 2.0, 2.0], 1e-5)
    assert epsilon([2.0, 2.0], 1e-5) == pytest.approx(epsilon([2.0**0.5], 1e-5), rel=1e-3)


def test_the_accountant_is_named_with_its_version():
    assert re.fullmatch(r"dp-accounting 0\.6\.\d+, PLDAccountant", ACCOUNTANT)


@pytest.mark.slow
def test_a_run_without_privacy_does_not_load_the_library():
    code = "import server.app, sys; sys.exit('dp_accounting' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
