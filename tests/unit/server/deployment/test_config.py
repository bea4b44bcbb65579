import pytest

from fedprompt.errors import ConfigError
from fedprompt.settings.section import section
from server.deployment.config import DeploymentConfig


def config(**values):
    return section(
        {f"deployment.{k}": v for k, v in values.items()}, "deployment", DeploymentConfig
    )


def test_the_host_that_sites_dial_is_the_addresss():
    assert config(address="[2001:db8::7]:9092").dialled == "2001:db8::7"
    assert config().insecure is False


@pytest.mark.parametrize("address", ["fed.example.org", "x:0", "http://x:1"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(ConfigError, match=r"deployment.address = .*expected host:port"):
        config(address=address)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "fed.example.org"])  # noqa: S104
def test_F17_plaintext_beyond_loopback_is_refused(host):
    with pytest.raises(ConfigError, match="plaintext is allowed on loopback only"):
        config(insecure=True, host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_F17_plaintext_on_loopback_is_for_tests(host):
    assert config(insecure=True, host=host).insecure


@pytest.mark.parametrize("ports", [{"port": 9093}, {"metrics_port": 9092}, {"metrics_port": 9093}])
def test_three_ports_are_three(ports):
    with pytest.raises(ConfigError, match="give three ports"):
        config(**ports)


def test_metrics_may_be_off():
    assert config(metrics_port=0).metrics_port == 0


def test_a_typo_is_named():
    with pytest.raises(ConfigError, match=r"did you mean deployment.metrics_port\?"):
        config(metric_port=1)
