"""Puts the parts that get certificates together, as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from atoll.base import log
from atoll.base.dns_server import server
from atoll.base.errors import AtollError
from atoll.config import Config
from atoll.domain.certificate import Proof, Standing, failed, wanted
from atoll.services.certificates.issuer import Issuer
from atoll.services.certificates.proofs import DnsProofs, HttpProofs, Provers
from atoll.services.certificates.renewing import Changes, Names, Renewing
from atoll.services.certificates.shelf import ACCOUNT, Shelf
from atoll.services.dns.txt_records import DynamicUpdate, read_key
from atoll.services.domains import Domains

_log = log.get("certificates")


class Certified(Protocol):
    """What is needed of the Cloud."""

    shelf: Shelf
    domains: Domains

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


def renewing_of(
    config: Config,
    *,
    keys: Path,
    cloud: Certified,
    proofs: HttpProofs,
    changes: Changes,
    every_s: float = 1.0,
    patience_s: float = 120.0,
) -> Renewing:
    """The loop, for a cloud with an ACME server. Raises Invalid for settings of DNS that cannot work."""
    provers: Provers = {Proof.HTTP: proofs}
    if config.acme.dns_server:
        key = read_key(Path(config.acme.dns_key_file))
        records = DynamicUpdate(server=server(config.acme.dns_server), key=key)
        provers[Proof.DNS] = DnsProofs(records)
    issuer = Issuer(
        settings=config.acme,
        key_path=keys / "acme_account",
        provers=provers,
        every_s=every_s,
        patience_s=patience_s,
    )

    async def names() -> Names:
        found = await cloud.domains.certifiable()
        asked = wanted(
            config.https.domain,
            vms=found.vms,
            custom=found.custom,
            has_dns=Proof.DNS in provers,
        )
        return Names(wanted=asked, kept=found.kept)

    return Renewing(
        shelf=cloud.shelf, issuer=issuer, names=names, changes=changes, now=lambda: cloud.now()
    )


async def certificates(
    config: Config, *, keys: Path, cloud: Certified, proofs: HttpProofs, changes: Changes
) -> None:
    """Keep certificates good, until cancelled; settings that cannot work are told by `atoll doctor`."""
    try:
        renewing = renewing_of(config, keys=keys, cloud=cloud, proofs=proofs, changes=changes)
    except AtollError as error:
        _log.error("no certificates", reason=str(error))
        cloud.shelf.note(ACCOUNT, failed(Standing(), str(error), now=cloud.now(), jitter=0.0))
        return
    await renewing.run()
