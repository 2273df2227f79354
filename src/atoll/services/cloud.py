"""The cloud as its doors and commands see it: one object that holds every service.

`run` owns the loops: the engine's events, the journal, the trash. Nothing starts before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from atoll.base.aio import TaskGroup
from atoll.base.errors import Conflict
from atoll.config import Config
from atoll.domain.account import Account, Caller, Published, Route
from atoll.domain.audit import Act
from atoll.domain.web import MAILED_PATH
from atoll.rpc.messages import VmState
from atoll.services.access import Access
from atoll.services.accounts import Accounts
from atoll.services.answers import Answers
from atoll.services.asking import Asking
from atoll.services.audit import Audit
from atoll.services.certificates import report
from atoll.services.certificates.shelf import Kept, Shelf
from atoll.services.changes import Changes
from atoll.services.defaults import Defaults
from atoll.services.dns.lookup import Lookup
from atoll.services.domains import Domains
from atoll.services.effects import Effects
from atoll.services.events import Events
from atoll.services.facts import Engine, Facts
from atoll.services.granting import Granting
from atoll.services.handover import Handover
from atoll.services.history import History
from atoll.services.joining import Joining
from atoll.services.journal import Journal
from atoll.services.keys import Keys
from atoll.services.links import Links
from atoll.services.locks import VmLocks
from atoll.services.mail import Mail
from atoll.services.mailed_links import MailedLinks
from atoll.services.names import names_of
from atoll.services.passkeys import Passkeys
from atoll.services.power import Power
from atoll.services.publishing import Publishing
from atoll.services.reconcile import Reconciler
from atoll.services.records import Records
from atoll.services.rehearsal import (
    RehearsalEngine,
    RehearsalJournal,
    RehearsalMail,
    RehearsalStore,
)
from atoll.services.resizing import Resizing
from atoll.services.retention import Retention
from atoll.services.sampling import Sampler
from atoll.services.settings import Settings
from atoll.services.sharing import Sharing
from atoll.services.snapshots import Snapshots
from atoll.services.team_grants import TeamGrants
from atoll.services.team_invitations import TeamInvitations
from atoll.services.teams import Teams
from atoll.services.tokens import Tokens
from atoll.services.trash import Trash
from atoll.services.usage import Usage
from atoll.services.visits import Visits
from atoll.services.vm_tokens import VmTokens
from atoll.services.vms import Vms
from atoll.services.web_ports import WebPorts
from atoll.services.withdrawal import Withdrawal
from atoll.store.engine import Store


class Cloud:
    """Wires the services together. The caller owns `store` and `engine` and closes them."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        engine: Engine,
        keys: Keys,
        now: Callable[[], float] = time.time,
        facts: Facts | None = None,
        locks: VmLocks | None = None,
        journal: type[Journal] = Journal,
        mail: type[Mail] = Mail,
    ) -> None:
        self.config = config
        self.keys = keys
        self.news = Changes()  # of everything that may be looked at
        self.changes = Changes(also=self.news)  # of what the edge shows
        self.facts = facts or Facts(engine=engine, changes=self.changes)
        self.now = now
        self.mail = mail(config, now=now)
        self._store = store
        self._engine = engine
        self._locks = locks = locks or VmLocks()
        effects = Effects(
            engine=engine,
            store=store,
            keys=keys,
            domain=config.https.domain,
            trash_s=config.vms.trash_hours * 3600,
        )
        self.journal = journal(
            store=store,
            effects=effects,
            facts=self.facts,
            locks=locks,
            changes=self.changes,
            now=now,
        )
        self.events = Events(store=store, news=self.news, now=now)
        self.audit = Audit(store=store, now=now)
        self.records = Records(store=store, audit=self.audit)
        self.access = Access(store=store, locks=locks, journal=self.journal, now=now)
        self.vms = Vms(
            defaults=config.vms,
            store=store,
            facts=self.facts,
            locks=locks,
            journal=self.journal,
            access=self.access,
            keys=keys,
            now=now,
        )
        self.power = Power(
            engine=engine, facts=self.facts, journal=self.journal, access=self.access
        )
        self.resizing = Resizing(facts=self.facts, journal=self.journal, access=self.access)
        self.snapshots = Snapshots(
            store=store,
            engine=engine,
            facts=self.facts,
            journal=self.journal,
            access=self.access,
            undo_s=config.vms.trash_hours * 3600,
            now=now,
        )
        self.settings = Settings(
            store=store,
            facts=self.facts,
            journal=self.journal,
            access=self.access,
            changes=self.changes,
        )
        granting = Granting(journal=self.journal, changes=self.changes)
        self.sharing = Sharing(
            store=store, access=self.access, granting=granting, changes=self.changes, now=now
        )
        self.links = Links(store=store, granting=granting, code=keys.link_code, now=now)
        self.asking = Asking(store=store, news=self.news, now=now)
        self.publishing = Publishing(store=store, facts=self.facts)
        self.withdrawal = Withdrawal(changes=self.changes, entering=self.publishing.entering)
        self.trash = Trash(
            store=store,
            locks=locks,
            journal=self.journal,
            access=self.access,
            events=self.events,
            now=now,
        )
        self.retention = Retention(
            store=store,
            facts=self.facts,
            locks=locks,
            journal=self.journal,
            access=self.access,
            events=self.events,
            free_percent=config.vms.history_free_percent,
            now=now,
        )
        self.defaults = Defaults(store=store)
        team_grants = TeamGrants(journal=self.journal)
        self.teams = Teams(
            store=store,
            journal=self.journal,
            team_grants=team_grants,
            changes=self.changes,
            now=now,
        )
        self.team_invitations = TeamInvitations(
            store=store,
            journal=self.journal,
            team_grants=team_grants,
            changes=self.changes,
            now=now,
        )
        self.accounts = Accounts(store=store, journal=self.journal, now=now)
        self.joining = Joining(
            store=store,
            changes=self.changes,
            domains=config.accounts.domains,
            waited_for=(self.sharing.is_awaited, self.team_invitations.waits_for),
            arrivals=(self.team_invitations.take_up,),
            now=now,
        )
        names = names_of(config)
        self.passkeys = Passkeys(store=store, names=names, now=now)
        self.mailed_links = MailedLinks(
            store=store,
            joining=self.joining,
            mail=self.mail,
            base=names.url(names.domain, MAILED_PATH),
            domain=names.domain,
            now=now,
        )
        self.shelf = Shelf(config.certificates)
        self.domains = Domains(
            own=config.https.domain,
            store=store,
            access=self.access,
            lookup=Lookup(config.domains.resolvers),
            changes=self.changes,
            now=now,
        )
        self.answers = Answers(store=store, key=keys.session_key, now=now)
        self.tokens = Tokens(
            store=store, domain=config.https.domain, changed=self.changes.bump, now=now
        )
        self.vm_tokens = VmTokens(
            store=store, domain=config.https.domain, changed=self.changes.bump, now=now
        )
        self.accounts.when_key_ends(lambda _key: self.changes.bump())
        self.visits = Visits(store=store)
        self.web_ports = WebPorts(
            store=store,
            engine=engine,
            locks=locks,
            events=self.events,
            changes=self.changes,
        )
        self.handover = Handover(
            store=store,
            facts=self.facts,
            locks=locks,
            journal=self.journal,
            access=self.access,
            accounts=self.accounts,
            tokens=self.tokens,
            events=self.events,
            team_grants=team_grants,
            changes=self.changes,
            max_vms=config.vms.max_vms,
            now=now,
        )
        self.history = History(store=store, now=now)
        self.usage = Usage(store=store, access=self.access, now=now)
        self.sampler = Sampler(store=store, engine=engine, facts=self.facts, now=now)
        self.reconciler = Reconciler(
            store=store,
            engine=engine,
            facts=self.facts,
            locks=locks,
            journal=self.journal,
            events=self.events,
        )

    async def run(self) -> None:
        """Run the loops until cancelled."""
        async with TaskGroup() as group:
            group.create_task(self.reconciler.run())
            group.create_task(self.journal.run())
            group.create_task(self.trash.run())
            group.create_task(self.retention.run())
            group.create_task(self.sampler.run())
            group.create_task(self.domains.run())
            group.create_task(self.visits.run())
            group.create_task(self.web_ports.run())
            group.create_task(self.sharing.run())
            group.create_task(self.withdrawal.run())
            group.create_task(self.audit.run())
            group.create_task(self.mail.run())
            group.create_task(self.mailed_links.run())

    @property
    def store(self) -> Store:
        """Where all of it is kept."""
        return self._store

    def rehearsal(self, account: Account) -> Cloud:
        """The same cloud for dry runs of one account's commands: see services.rehearsal."""
        return Cloud(
            config=self.config,
            store=RehearsalStore(self._store, account=account.id),
            engine=RehearsalEngine(self._engine),
            keys=self.keys,
            now=self.now,
            facts=self.facts,
            locks=self._locks,
            journal=RehearsalJournal,
            mail=RehearsalMail,
        )

    def certificate(self, host: str) -> tuple[Kept | None, str]:
        """A custom domain's certificate, and what is wrong; empty: nothing. Reads files: for a thread."""
        kept = self.shelf.certificate(host)
        return kept, report.problem(self.config, self.shelf, host, kept, now=self.now())

    async def caller_for_key(self, key_line: str, *, source: str) -> Caller | None:
        """Who logs in with this public key; None: nobody has added it."""
        return await self.accounts.caller_for_key(key_line, source=source)

    async def route(self, caller: Caller, vm_name: str) -> Route:
        """Where the VM's sshd answers.

        Raises NotFound, or Conflict when the VM does not run.
        """
        vm = await self.access.find_root(caller, vm_name)
        facts = self.facts.get(vm.id)
        if facts is None or facts.state is not VmState.RUNNING:
            facts = await self.facts.fresh(vm.id)
        if facts is None or facts.state is not VmState.RUNNING or facts.address is None:
            state = facts.state if facts else vm.phase
            raise Conflict(f"{vm.title} is not running ({state})", hint=f"Try: resume {vm_name}")
        return Route(
            vm_id=vm.id,
            vm_name=vm_name,
            address=facts.address,
            login_user=caller.scope.user or facts.login_user,
            host_ca=self.keys.host_ca_public,
            caller=caller,
        )

    async def opened(
        self, caller: Caller, route: Route, *, how: str, result: str = "ok", port: int | None = None
    ) -> None:
        """Record that a caller came into a VM by a door that no command leads through; raises nothing."""
        await self.audit.of(
            caller,
            Act.ROOT,
            what=how,
            vm=route.vm_name,
            vm_id=route.vm_id,
            result=result,
            detail={"user": route.login_user} if port is None else {"port": port},
        )

    def key_refused(self) -> None:
        """A key was offered that nobody has: counted, for records of it strangers would make at will."""
        self.audit.refused_keys += 1

    async def published(self) -> tuple[Published, ...]:
        """Every VM the edge should know, with its address while it runs."""
        return await self.publishing.published()
