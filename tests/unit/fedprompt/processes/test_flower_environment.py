"""What Flower's processes find around them, proxies of the environment above all."""

from pathlib import Path

import httpx
import pytest

from fedprompt.processes.flower_environment import variables

PROXIES = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")}


def proxied(given: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether httpx, as Flower uses it, would ask a proxy for a URL."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        return client._transport_for_url(httpx.URL(url)) is not client._transport


@pytest.mark.parametrize(
    "more",
    [{}, {"no_proxy": "intern.example.org"}, {"NO_PROXY": "intern.example.org"}, {"no_proxy": ""}],
)
def test_what_stays_on_this_machine_passes_no_proxy(
    more: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = variables(Path("/home"), PROXIES | more)
    for host in ("127.0.0.1:9094", "localhost:9094", "[::1]:9094"):
        assert proxied(PROXIES | more, f"http://{host}/v1/runtime", monkeypatch)  # the hazard
        assert not proxied(found, f"http://{host}/v1/runtime", monkeypatch)
    assert proxied(found, "https://fed.example.org:9092/v1/fleet", monkeypatch)
    assert proxied(found, "https://intern.example.org/", monkeypatch) is not any(more.values())


def test_no_proxy_at_all_stays_so() -> None:
    found = variables(Path("/home"), {"NO_PROXY": "*"})
    assert found["no_proxy"] == found["NO_PROXY"] == "*"


def test_flower_is_silent_and_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("SOMETHING", "else")
    found = variables(Path("/home"))
    assert (found["FLWR_HOME"], found["SOMETHING"]) == ("/home", "else")
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
