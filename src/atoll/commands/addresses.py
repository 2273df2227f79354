"""How a VM is reached, as users type it. Pure: configuration and a name in, text out."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.config import Config
from atoll.domain.web import Names
from atoll.services.names import names_of


@dataclass(frozen=True, slots=True)
class Addresses:
    """Names, ssh lines and URLs."""

    config: Config

    @property
    def names(self) -> Names:
        """The hosts and ports of this cloud."""
        return names_of(self.config)

    @property
    def ssh_host(self) -> str:
        """The gateway's name."""
        return self.config.ssh.host or "localhost"

    def ssh_dest(self, name: str) -> str:
        """`web@localhost`."""
        return f"{name}@{self.ssh_host}"

    def ssh_command(self, name: str) -> str:
        """`ssh -p 2222 web@localhost`."""
        return f"{self._ssh}{self.ssh_dest(name)}"

    @property
    def scp(self) -> str:
        """`scp -P 2222`, which files and `web@localhost:` follow."""
        port = self.config.ssh.port
        return "scp" if port == 22 else f"scp -P {port}"

    @property
    def lobby_command(self) -> str:
        """`ssh -p 2222 localhost`, which a command follows."""
        return f"{self._ssh}{self.ssh_host}"

    def https_url(self, name: str) -> str:
        """`https://web.atoll.localhost:8443/`."""
        return self.names.url(f"{name}.{self.config.https.domain}")

    def domain_url(self, domain: str) -> str:
        """`https://www.example.com/`: a name of one's own."""
        return self.names.url(domain)

    def login_url(self, code: str) -> str:
        """Where a one-time code signs a browser in."""
        return self.cloud_url(f"login/{code}")

    def cloud_url(self, path: str) -> str:
        """A page of the cloud itself: `https://atoll.localhost:8443/docs.md`."""
        return self.names.url(self.config.https.domain, f"/{path}")

    def ssh_fields(self, name: str) -> dict[str, str | int]:
        """The JSON keys that say how to connect."""
        return {
            "ssh_dest": self.ssh_dest(name),
            "ssh_host": self.ssh_host,
            "ssh_user": name,
            "ssh_port": self.config.ssh.port,
        }

    @property
    def _ssh(self) -> str:
        port = self.config.ssh.port
        return f"ssh {'' if port == 22 else f'-p {port} '}"
