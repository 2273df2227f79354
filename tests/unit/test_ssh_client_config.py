"""The client configuration is what OpenSSH reads; its use is tested with the real client."""

from __future__ import annotations

from atoll.doors.ssh.client_config import client_config, known_hosts

KEY = "ssh-ed25519 AAAAgateway comment"
CA = "ssh-ed25519 AAAAauthority"


def test_default_domain() -> None:
    text = client_config(
        ssh_host="localhost",
        ssh_port=2222,
        domain="atoll.localhost",
        gateway_key=KEY,
        host_ca=CA,
    )
    assert "Host *.atoll\n    HostName %h.localhost\n" in text
    assert "Host *.atoll *.atoll.localhost\n" in text
    assert "KnownHostsCommand /bin/echo [localhost]:2222 ssh-ed25519 AAAAgateway\n" in text
    assert "/bin/echo @cert-authority *.atoll.localhost ssh-ed25519 AAAAauthority\n" in text


def test_port_22_and_a_single_label() -> None:
    text = client_config(
        ssh_host="vm.example.org", ssh_port=22, domain="cloud", gateway_key=KEY, host_ca=CA
    )
    assert "%h" not in text
    assert "/bin/echo vm.example.org ssh-ed25519 AAAAgateway\n" in text


def test_known_hosts() -> None:
    assert known_hosts(
        ssh_host="h", ssh_port=2222, domain="d.example", gateway_key=KEY, host_ca=CA
    ) == (
        "[h]:2222 ssh-ed25519 AAAAgateway\n@cert-authority *.d.example ssh-ed25519 AAAAauthority\n"
    )
