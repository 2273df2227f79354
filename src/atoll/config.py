"""The only reader of settings: one TOML file, every value with a default, a unit and a reason.

Values in force = defaults below, then the file. Unknown keys are an error that names them.
`render` prints the file a reader can start from; `atoll config show` uses it.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from atoll.base.dns_server import server
from atoll.base.errors import Invalid

DEFAULT_PATH = Path("/etc/atoll/atoll.toml")
# Without the file that cannot be read.
_LIST = "all settings: ATOLL_CONFIG=/dev/null atoll config show"
Label = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,7}$")]
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,200}[a-z0-9])?$")]
Sender = Annotated[str, StringConstraints(pattern=r"^([a-z0-9._+-]{1,64}@[a-z0-9.-]{1,190})?$")]
Port = Annotated[int, Field(ge=1, le=65535)]


def _prefix(text: str) -> str:
    if text and ipaddress.IPv6Network(text).prefixlen > 64:
        raise ValueError("must be a /64 or larger")
    return text


def _listen(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is no IP address; 0.0.0.0 is all of IPv4") from error
    return text


def _dns_server(text: str) -> str:
    try:
        server(text)
    except Invalid as error:
        raise ValueError(error.message) from error
    return text


Prefix = Annotated[str, AfterValidator(_prefix)]
Listen = Annotated[str, AfterValidator(_listen)]
DnsServer = Annotated[str, AfterValidator(_dns_server)]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Section(BaseModel):
    """A table of the file; a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Paths(Section):
    """Where things are kept."""

    state: Path = Field(
        Path("/var/lib/atoll"), description="pool, store and keys; a local file system, XFS is best"
    )
    run: Path = Field(Path("/run/atoll"), description="sockets and pid files; gone after a reboot")
    cache: Path = Field(
        Path("/var/cache/atoll"), description="built images by content hash; safe to delete"
    )


class Network(Section):
    """How VMs are reached on this machine and reach out."""

    instance: Label = Field(
        "atoll",
        description="prefix of namespaces, interfaces, cgroups and nft tables; two Atolls on one"
        " machine need two",
    )
    block: ipaddress.IPv4Network = Field(
        ipaddress.IPv4Network("10.213.0.0/16"),
        description="outer addresses, 4 per VM; a block no other network of yours uses",
    )
    upstream_dns: tuple[ipaddress.IPv4Address, ...] = Field(
        (), description="resolvers for VMs; empty: those of /etc/resolv.conf"
    )
    connections_per_vm: int = Field(
        4096,
        ge=16,
        description="tracked connections of one VM, so that none fills the host's table",
    )
    new_connections_per_second: int = Field(
        500, ge=1, description="new connections of one VM per second; a burst of twice that passes"
    )

    @property
    def service(self) -> ipaddress.IPv4Address:
        """The address of services for VMs; as in atoll.engine.net.address."""
        return self.block.network_address + 1


class Vms(Section):
    """What `new` makes when nothing is said, and the most it makes."""

    image: str = Field("debian", description="default image")
    cpus: int = Field(
        0,
        ge=0,
        le=64,
        description="vCPUs; 0: 2 with KVM, 1 without (an emulated vCPU costs a host thread)",
    )
    memory: str = Field(
        "1G", description="memory; pages are shared with the template until written"
    )
    disk: str = Field("25G", description="virtual disk size; blocks are taken when written")
    max_vms: int = Field(
        1000, ge=1, description="VMs per account; one more costs nothing but is not free"
    )
    trash_hours: float = Field(24.0, gt=0, description="hours `rm` can be undone")
    history_free_percent: int = Field(
        10,
        ge=0,
        le=90,
        description="with less of the pool free, the VMs' history takes no more snapshots, and its oldest"
        " go; those that somebody took stay",
    )

    def cpus_on(self, accel: str) -> int:
        """vCPUs when nothing is said, on a node with this acceleration."""
        return self.cpus or (2 if accel == "kvm" else 1)


class Engine(Section):
    """The part that runs as root."""

    accel: Annotated[str, StringConstraints(pattern=r"^(auto|kvm|tcg)$")] = Field(
        "auto", description="auto boots a probe guest on KVM once per host and kernel, else tcg"
    )
    tb_size_mib: int = Field(
        128,
        ge=16,
        description="MiB of translated code per VM under tcg; the default of QEMU grows to 1 GiB. "
        "A cold boot took 70, 40, 28, 24 and 22 s with 16, 32, 64, 128 and 256",
    )
    slots_ready: int = Field(4, ge=0, description="network namespaces prepared ahead of `new`")
    starts_at_once: int = Field(
        4,
        ge=1,
        description="VMs started or cloned at the same moment; more wait, so a burst does not thrash",
    )
    templates_kept: int = Field(
        6,
        ge=0,
        description="warm templates kept though no VM stands on them, besides the default size's; the"
        " least recently used go first. Six take some 1.5 GB of disk, and of memory once all were used",
    )
    merge_depth: int = Field(
        24,
        ge=4,
        le=32,
        description="merge a VM's disk layers in the background beyond this many; fewer are read faster,"
        " and make the history of a disk cost more to keep",
    )
    reserve: str = Field(
        "1G", description="ballast in the pool, released to finish work when it is full"
    )
    vm_uid_base: int = Field(
        700_000, ge=1000, description="first of the unprivileged uids, one per running VM"
    )


class Ssh(Section):
    """The SSH door: lobby and gateway."""

    listen: str = Field(
        "0.0.0.0", description="address; the VMs' own sshd is never exposed directly"
    )
    port: Port = Field(2222, description="22 where the host's own sshd is elsewhere")
    host: str = Field("", description="name users type in ssh lines; empty: localhost")


class Https(Section):
    """The HTTPS door, HAProxy.

    VMs reach it by IPv4, and no loopback address: where `listen` is neither, it listens at the address of
    services for VMs, too.
    """

    listen: Listen = Field("0.0.0.0", description="IP address")
    port: Port = Field(8443, description="443 where nothing else uses it")
    http_port: Port = Field(8080, description="plain HTTP: redirects to HTTPS, nothing else")
    public_port: int = Field(
        0, ge=0, le=65535, description="port users see in URLs; 0: the same as `port`"
    )
    domain: Domain = Field(
        "atoll.localhost", description="names: <domain> for the cloud, <vm>.<domain> for VMs"
    )
    vm_ports: bool = Field(
        True, description="also serve https://<vm>.<domain>:3000-9999, each to the same port inside"
    )
    vm_port_first: Port = Field(3000, description="first of those ports")
    vm_port_last: Port = Field(9999, description="last of those ports")
    exedev_headers: bool = Field(
        False,
        description="tell VMs who is signed in as X-ExeDev-UserID, -Email and -Token-Ctx too, and take"
        " tokens in X-ExeDev-Authorization: for programs made for exe.dev",
    )
    session_hours: float = Field(24.0 * 14, gt=0, description="hours a browser stays signed in")

    @property
    def takes_ipv4(self) -> bool:
        """Whether clients reach it by IPv4."""
        address = ipaddress.ip_address(self.listen)
        return address.version == 4 or address.is_unspecified

    @property
    def is_beyond_vms(self) -> bool:
        """Whether no VM could reach `listen`."""
        return not self.takes_ipv4 or ipaddress.ip_address(self.listen).is_loopback

    @property
    def address_of_its_own(self) -> ipaddress.IPv4Address | None:
        """Where VMs reach it, if it is not all addresses, or that of services for VMs."""
        address = ipaddress.ip_address(self.listen)
        if self.is_beyond_vms or address.is_unspecified:
            return None
        return ipaddress.IPv4Address(self.listen)

    @property
    def seen_port(self) -> int:
        """The port users see in URLs."""
        return self.public_port or self.port


class Acme(Section):
    """Certificates from an ACME server, such as Let's Encrypt."""

    directory: str = Field(
        "",
        description="URL of the server's directory; empty: certificates of Atoll's own CA. Let's"
        " Encrypt: https://acme-v02.api.letsencrypt.org/directory",
    )
    agree: bool = Field(
        False, description="true: you agree to the server's terms, without which it gives nothing"
    )
    email: str = Field("", description="address the server may write to; empty: none is given")
    ca_file: str = Field(
        "", description="PEM file of the CA to trust for a private server; empty: the system's"
    )
    dns_server: str = Field(
        "",
        description="IP address (`:port`) of the domain's primary DNS server, which takes updates by"
        " RFC 2136: one wildcard certificate then serves every VM; empty: one certificate per VM",
    )
    dns_key_file: str = Field(
        "", description="file with the TSIG key for these updates: hmac-sha256:NAME:SECRET"
    )


class Domains(Section):
    """Names of their own for VMs."""

    resolvers: tuple[DnsServer, ...] = Field(
        (),
        description="IP addresses (`:port`) of the DNS servers asked where such a name leads; empty:"
        " those of /etc/resolv.conf",
    )


class Dns(Section):
    """Authoritative DNS for `https.domain`, Knot."""

    enabled: bool = Field(
        False, description="answer for the domain; nobody asks for names under localhost"
    )
    listen: tuple[Address, ...] = Field(
        (),
        description="addresses; empty: every global one of this machine's interfaces. Not 0.0.0.0: the"
        " VMs' resolver and the host's own have port 53 of other addresses",
    )
    port: Port = Field(53, description="UDP and TCP; resolvers ask on 53 and nowhere else")
    ipv4: tuple[ipaddress.IPv4Address, ...] = Field(
        (),
        description="what names resolve to; empty: public ones of the interfaces. To be set behind NAT",
    )
    ipv6: tuple[ipaddress.IPv6Address, ...] = Field(
        (),
        description="the same for IPv6; empty: public ones, if ssh.listen and https.listen take IPv6",
    )
    name_servers: tuple[Domain, ...] = Field(
        (), description="names of the NS records; empty: ns1.<domain>, which needs glue"
    )
    ipv6_prefix: Prefix = Field(
        "",
        description="network (/64 or larger) that is routed to this machine: each VM gets an address"
        " of it, and `ssh <vm>.<domain>` needs no user name; empty: none. It shows which names exist",
    )
    ttl_s: int = Field(
        300,
        ge=1,
        le=86400,
        description="seconds resolvers keep an answer; a moved machine waits as long",
    )
    vm_ttl_s: int = Field(
        10,
        ge=1,
        le=86400,
        description="the same for one VM's address: a new name soon leads to its VM",
    )
    caa: tuple[Domain, ...] = Field(
        (), description="authorities that may certify the domain, as letsencrypt.org; empty: any"
    )

    @property
    def vm_network(self) -> ipaddress.IPv6Network | None:
        """`ipv6_prefix`, when it is in use."""
        if not self.enabled or not self.ipv6_prefix:
            return None
        return ipaddress.IPv6Network(self.ipv6_prefix)


class Control(Section):
    """The part without privileges."""

    user: str = Field("atoll", description="Unix user it runs as; made by `make up`")
    api_port: Port = Field(7780, description="loopback port where HAProxy reaches control")
    services_port: Port = Field(
        7781, description="port where VMs, and nobody else, reach control: http://metadata.int/"
    )
    database: str = Field(
        "", description="SQLAlchemy URL; empty: SQLite in paths.state; postgresql+asyncpg:// works"
    )


class Mail(Section):
    """How mail leaves: invitations and sign-in links."""

    host: str = Field(
        "",
        description="SMTP server; empty: mail stays on this machine, where admins read it at /mail",
    )
    port: Port = Field(587, description="of that server")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="starttls or tls, its certificate is checked; none where the server is this machine",
    )
    user: str = Field("", description="whom to log in as; empty: nobody")
    password_file: Path | Literal[""] = Field(
        "", description="file with that user's password, readable by `control.user`"
    )
    ca_file: Path | Literal[""] = Field(
        "",
        description="certificates (PEM) to trust in place of the system's, for a server of yours",
    )
    sender: Sender = Field(
        "", description="address mail comes from; empty: atoll@ and the cloud's domain"
    )


class Accounts(Section):
    """Who may have an account besides those that are invited."""

    domains: tuple[Domain, ...] = Field(
        (), description="e-mail domains whose addresses may join by themselves, as example.com"
    )


class Provider(Section):
    """An OpenID provider; see `oidc.providers`."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    label: Annotated[str, StringConstraints(max_length=60)] = ""
    issuer: Annotated[str, StringConstraints(pattern=r"^https://[!-~]{1,500}$")]
    client_id: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,500}$")]
    client_secret_file: Path | None = None
    scopes: tuple[Annotated[str, StringConstraints(pattern=r"^[!-~]{1,100}$")], ...] = (
        "openid",
        "email",
    )


class Oidc(Section):
    """Signing in with accounts that people have elsewhere: Google, GitLab, Keycloak, Dex, …"""

    providers: tuple[Provider, ...] = Field(
        (),
        description="`[[oidc.providers]]` tables: `name`, `label` on the button, `issuer`, `client_id`,"
        " `client_secret_file` (readable for control's user; none: a public client), `scopes`."
        " Each is told the redirect URI `https://<domain>:<port>/login/from/<name>`; see docs/sign-in.md",
    )

    @field_validator("providers")
    @classmethod
    def _one_of_each(cls, providers: tuple[Provider, ...]) -> tuple[Provider, ...]:
        for field in ("name", "issuer"):
            values = [getattr(provider, field) for provider in providers]
            if len(set(values)) < len(values):
                raise ValueError(f"two have the same {field}")
        return providers


class Config(Section):
    """Everything that can be set."""

    paths: Paths = Paths()
    network: Network = Network()
    vms: Vms = Vms()
    engine: Engine = Engine()
    ssh: Ssh = Ssh()
    https: Https = Https()
    acme: Acme = Acme()
    domains: Domains = Domains()
    dns: Dns = Dns()
    control: Control = Control()
    mail: Mail = Mail()
    accounts: Accounts = Accounts()
    oidc: Oidc = Oidc()

    @property
    def pool(self) -> Path:
        """Disks, templates and VM records; only the engine reads it."""
        return self.paths.state / "pool"

    @property
    def control_state(self) -> Path:
        """The store and the keys of control; owned by `control.user`."""
        return self.paths.state / "control"

    @property
    def mail_folder(self) -> Path:
        """Mail that stays here: all of it without an SMTP server, else what could not be sent."""
        return self.control_state / "mail"

    @property
    def mail_sender(self) -> str:
        """Whom mail comes from."""
        return self.mail.sender or f"atoll@{self.https.domain}"

    @property
    def certificates(self) -> Path:
        """Certificates from an ACME server, with their keys."""
        return self.control_state / "certificates"

    @property
    def engine_socket(self) -> Path:
        """Where the engine's RPC listens."""
        return self.paths.run / "engine.sock"

    @property
    def edge_run(self) -> Path:
        """HAProxy's configuration, maps and runtime socket."""
        return self.paths.run / "edge"

    @property
    def dns_run(self) -> Path:
        """Knot's configuration, zones and control socket."""
        return self.paths.run / "dns"

    @property
    def database_url(self) -> str:
        """The store's SQLAlchemy URL."""
        return self.control.database or f"sqlite+aiosqlite:///{self.control_state / 'atoll.db'}"


def path_in_force() -> Path:
    """$ATOLL_CONFIG, or the default path."""
    return Path(os.environ.get("ATOLL_CONFIG", DEFAULT_PATH))


def load(path: Path | None = None) -> Config:
    """Read the file (a missing default file means defaults only).

    Raises Invalid with the key and what is wrong with it.
    """
    path = path or path_in_force()
    try:
        raw = tomllib.loads(path.read_text()) if path.exists() or path != DEFAULT_PATH else {}
        return Config.model_validate(raw)
    except FileNotFoundError as error:
        raise Invalid(f"{path} does not exist", hint="Try: unset ATOLL_CONFIG") from error
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path}: {error}") from error
    except ValidationError as error:
        raise _wrong(path, error) from error


def _wrong(path: Path, error: ValidationError) -> Invalid:
    """All keys that this version has not got; when there are none, the first wrong value."""
    found = [(".".join(map(str, one["loc"])), one) for one in error.errors()]
    if unknown := [key for key, one in found if one["type"] == "extra_forbidden"]:
        return Invalid(
            f"{path}: this version has no setting {', '.join(unknown)}",
            hint=f"Take out what an older version had, or mend a name; {_LIST}",
        )
    key, first = found[0]
    return Invalid(f"{path}: {key}: {first['msg']}", hint=f"Mend it; {_LIST}")


def render(config: Config, *, only_set: bool = False) -> str:
    """The values in force as a commented TOML file; `load` of it gives the same Config.

    `only_set`: values that are the default are comments too. A file that people keep should not
    hold them: a later version's better default would not reach it, and a key it drops would stop it.
    """
    lines: list[str] = []
    for name, section in config:
        lines.append(f"[{name}]")
        for key, field in type(section).model_fields.items():
            lines.append(f"# {field.description}; default {_toml(field.default)}")
            value = getattr(section, key)
            mark = "# " if only_set and value == field.default else ""
            lines.append(f"{mark}{key} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Section):
        given = [(key, each) for key, each in value if each is not None]
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in given) + "}"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
