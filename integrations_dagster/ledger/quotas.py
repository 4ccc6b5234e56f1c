"""What an account takes: quotas, concurrency, a learned pace, and its circuit; shared by all that use the account.

Every request is granted in a transaction, as a delay. Several quotas hold at once: short windows are paced, one request
after the other, so that no window ever holds too many; long ones (a day) are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from integrations_dagster.ledger.batches import BatchStatus
from integrations_dagster.ledger.leases import Leases
from integrations_dagster.ledger.pace import Pace
from integrations_dagster.ledger.prepared import Prepared
from integrations_dagster.ledger.schema import accounts, batches, quotas, slots
from integrations_dagster.ledger.windows import Window
from integrations_dagster.vocabulary import IntegrationsError

PACED = 60.0
"""Seconds: quotas of windows up to this long are paced, longer ones are counted."""
TRUSTED_EVENTS = 3
"""Refusals in a row from which a published quota is not believed any more, and the pace is learned instead."""
AT_ONCE = 0.1
"""Seconds of silence after the first refusal beside a published quota: a machine that stands still for 20 ms sends one
request too many then."""
LONGEST_DELAY = 900.0
"""Seconds beyond which a request is not granted at all, because a run worker would only sleep."""
MEASURED = 10.0
"""Seconds over which the accepted rate is measured at the most."""
_UNPACED = Pace()


@dataclass(frozen=True, slots=True)
class Use:
    """Who uses an account, and what is published of it.

    Attributes:
        account: The account, without object and sync.
        run_id: The run.
        began: When the writer began (the ledger's clock): a circuit opened later stops it, an older one is tried.
        quotas: (requests, seconds) of each published quota.
        concurrency: Requests in flight at once, or None.
        assumed: Whether `quotas` are the kind's own: then what the account's answers say replaces them. Those that a
            person has set hold unless the answers say less.
    """

    account: str
    run_id: str
    began: float
    quotas: tuple[tuple[int, float], ...] = ()
    assumed: bool = False
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """Leave to send one request.

    Attributes:
        delay: Seconds from now until it may be sent.
        serial: Tells `refused` how old the request is.
    """

    delay: float = 0.0
    serial: int = 0


class NoSlot(Exception):
    """As many requests are in flight as the account takes: ask again soon."""


class QuotaSpent(IntegrationsError):
    """The account's quota is used up for longer than a run waits.

    Attributes:
        wait: Seconds until there is more.
    """

    def __init__(self, message: str, remedy: str, wait: float) -> None:
        super().__init__(message, remedy)
        self.wait = wait

    def __reduce__(self) -> Any:
        return (type(self), (self.message, self.remedy, self.wait))


class CircuitOpen(IntegrationsError):
    """The destination was found to be down while this run was under way: nothing more is sent to it."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """An open circuit: when it was opened (seconds since the epoch), by which run, and why."""

    opened: float
    opened_by: str
    reason: str


class Quotas(Leases):
    """Grants requests, and learns from answers."""

    def _grant(self, tx: Connection, use: Use, now: float, holder: str, expires: float) -> Granted:
        """Grant one request within a transaction; `holder` takes a slot until `expires` seconds after its sending.

        Raises:
            CircuitOpen: See there.
            NoSlot: See there.
            QuotaSpent: See there.
        """
        row = _ACCOUNT.first(tx, name=use.account)
        at, serial = now, 0
        if row is not None:
            if row.opened is not None and (row.opened_by == use.run_id or row.opened > use.began):
                raise CircuitOpen(row.reason or "The destination is unavailable.")
            at = max(at, row.blocked_until)
        if use.concurrency is not None:
            self._take_slot(tx, use, now, holder)
        at = self._through_quotas(tx, use, now, at)
        if row is None and not use.quotas:
            row = self._account(tx, use.account, Pace.first(now))
        if row is not None and row.rate is not None:
            at, pace = _pace(row).grant(at)
            serial = pace.granted
            _SET_PACE.changed(tx, name=use.account, **pace.columns())
        if at - now > LONGEST_DELAY:
            raise QuotaSpent(
                f"The account asks for {_duration(at - now)} of silence.",
                "Nothing is lost: launch the run again after that, and it delivers what is missing.",
                at - now,
            )
        if use.concurrency is not None:
            tx.execute(slots.update().where(slots.c.holder == holder).values(expires=at + expires))
        return Granted(max(0.0, at - now), serial)

    def _take_slot(self, tx: Connection, use: Use, now: float, holder: str) -> None:
        tx.execute(slots.delete().where(slots.c.account == use.account, slots.c.expires < now))
        others = sa.select(sa.func.count()).where(slots.c.account == use.account, slots.c.holder != holder)
        if int(tx.execute(others).scalar_one()) >= (use.concurrency or 0):
            raise NoSlot
        if tx.execute(sa.select(slots.c.holder).where(slots.c.holder == holder)).first() is None:
            tx.execute(slots.insert().values(holder=holder, account=use.account, expires=now))

    def _free_slot(self, tx: Connection, holder: str) -> None:
        tx.execute(slots.delete().where(slots.c.holder == holder))

    def _through_quotas(self, tx: Connection, use: Use, now: float, at: float) -> float:
        rows = _QUOTAS.all(tx, name=use.account)
        known = {row.seconds: row for row in rows}
        paced: list[Window] = []
        for seconds, allowed in self._windows(use, known).items():
            row = known.get(seconds)
            if row is None:
                values = {"requests": allowed, "arrival": 0.0, "started": now, "used": 0}
                tx.execute(quotas.insert().values(account=use.account, seconds=seconds, **values))
            arrival, started, used = (row.arrival, row.started, row.used) if row else (0.0, now, 0)
            if seconds <= PACED:
                window = Window.of(seconds, allowed, arrival, started, used, now)
                at = max(at, window.earliest(at))
                paced.append(window)
                continue
            if now >= started + seconds:
                started, used = now, 0
            if used >= allowed:
                wait = started + seconds - now
                raise QuotaSpent(
                    f"The account's {allowed:,} requests in {_duration(seconds)} are used up.",
                    f"Nothing is lost: launch the run again in {_duration(wait)}, and it delivers what is missing.",
                    wait,
                )
            self._set_quota(tx, use.account, seconds, arrival=0.0, started=started, used=used + 1)
        for window in paced:
            self._set_quota(tx, use.account, window.seconds, **window.after(at))
        return at

    def _windows(self, use: Use, known: dict[float, Any]) -> dict[float, int]:
        """Requests allowed by window in seconds: what is published, corrected by what the answers said."""
        reported = {seconds: int(row.reported) for seconds, row in known.items() if row.reported is not None}
        told_short = any(seconds <= PACED for seconds in reported)
        windows: dict[float, int] = {}
        for requests, seconds in use.quotas:
            if seconds in reported:
                windows[seconds] = reported[seconds] if use.assumed else min(requests, reported[seconds])
            elif not (use.assumed and told_short and seconds <= PACED):
                windows[seconds] = requests
        return {**reported, **windows}

    def _set_quota(self, tx: Connection, account: str, seconds: float, **values: Any) -> None:
        _SET_QUOTA.changed(tx, name=account, window=seconds, **values)

    def grant(self, use: Use) -> Granted:
        """Grant a request that belongs to no batch (who the account is, a look-up).

        Raises:
            CircuitOpen: The circuit was opened while this run was under way.
            QuotaSpent: The account's quota is used up for longer than a run waits.
        """
        with self._transaction() as tx:
            # Such requests are few and come one at a time, so they take no slot.
            return self._grant(tx, replace(use, concurrency=None), self.now(), "", 0.0)

    # What is learned from answers

    def blocked(self, account: str) -> float:
        """Seconds from now for which nothing may be sent to an account; 0 if it may."""
        with self._engine.connect() as connection:
            query = sa.select(accounts.c.blocked_until).where(accounts.c.account == account)
            return max(0.0, float(connection.execute(query).scalar() or 0.0) - self.now())

    def refused(self, use: Use, serial: int, wait: float | None) -> None:
        """The destination throttled a request: everybody waits, and the pace falls.

        Args:
            serial: `Granted.serial` of the request.
            wait: Seconds that the answer asks to wait, or None where it does not say.
        """
        with self._transaction() as tx:
            row = self._account(tx, use.account)
            now, pace = self.now(), _pace(row)
            block, after = pace.refused(now, serial, *self._accepted(tx, use.account, now))
            if use.quotas and pace.rate is None and after.events < TRUSTED_EVENTS:
                # A published quota holds: one request too many is bad luck of timing, not a reason to slow down, nor to
                # be silent for longer than it takes until there is room for it. A second one says that others use the
                # account: the window may be full.
                room = [seconds / requests for requests, seconds in use.quotas if seconds <= PACED]
                block = max(AT_ONCE, *room) if room and after.events == 1 else max([block, *room])
                after = Pace(events=after.events, last_event=after.last_event)
            until = max(row.blocked_until, now + (block if wait is None else wait))
            tx.execute(
                accounts.update()
                .where(accounts.c.account == use.account)
                .values(blocked_until=until, **after.columns())
            )

    def reported(self, use: Use, seconds: float, *, requests: int | None, remaining: int | None) -> None:
        """An answer tells a quota of the account: take its word.

        Args:
            seconds: Window of the quota.
            requests: Requests in the window, or None.
            remaining: Requests left in it (counted quotas only), or None.
        """
        with self._transaction() as tx:
            where = sa.and_(quotas.c.account == use.account, quotas.c.seconds == seconds)
            row = tx.execute(sa.select(quotas).where(where).with_for_update()).first()
            allowed = requests or (row.reported or row.requests if row else None)
            if allowed is None:
                return
            values: dict[str, Any] = {"reported": allowed}
            if remaining is not None and seconds > PACED:
                values["used"] = max(0, allowed - remaining)
            if row is None:
                first = {"requests": allowed, "arrival": 0.0, "started": self.now(), "used": 0}
                tx.execute(quotas.insert().values(account=use.account, seconds=seconds, **{**first, **values}))
            else:
                tx.execute(quotas.update().where(where).values(**values))

    def hold_back(self, account: str, seconds: float) -> None:
        """Send nothing to an account for so many seconds: its quota is empty until then.

        For a quarter of an hour at the most, so that a misread answer is found out by the next one.
        """
        with self._transaction() as tx:
            row = self._account(tx, account)
            until = max(row.blocked_until, self.now() + min(seconds, LONGEST_DELAY))
            tx.execute(accounts.update().where(accounts.c.account == account).values(blocked_until=until))

    def _account(self, tx: Connection, account: str, pace: Pace = _UNPACED) -> Any:
        query = sa.select(accounts).where(accounts.c.account == account).with_for_update()
        row = tx.execute(query).first()
        if row is None:
            tx.execute(accounts.insert().values(account=account, blocked_until=0.0, **pace.columns()))
            row = tx.execute(query).first()
        return row

    def _accepted(self, tx: Connection, account: str, now: float) -> tuple[int, float]:
        """Batches that the account answered in the last second, and how many per second lately."""
        answered = batches.c.status == BatchStatus.COMPLETED
        recent = sa.and_(batches.c.account == account, batches.c.closed > now - MEASURED, answered)
        row = tx.execute(
            sa.select(
                sa.func.count(),
                sa.func.min(batches.c.closed),
                sa.func.sum(sa.case((batches.c.closed > now - 1.0, 1), else_=0)),
            ).where(recent)
        ).one()
        if not row[0]:
            return 0, 0.0
        return int(row[2] or 0), int(row[0]) / max(1.0, now - row[1])

    def learned_concurrency(self, account: str) -> int | None:
        """Requests in flight that the last run of an account came to, or None."""
        with self._engine.connect() as connection:
            query = sa.select(accounts.c.concurrency).where(accounts.c.account == account)
            return connection.execute(query).scalar()

    def learn_concurrency(self, account: str, concurrency: int) -> None:
        """Keep the requests in flight that a run came to, for the next one to begin with."""
        with self._transaction() as tx:
            self._account(tx, account)
            tx.execute(accounts.update().where(accounts.c.account == account).values(concurrency=concurrency))

    # The circuit

    def circuit(self, account: str) -> Circuit | None:
        """The account's circuit if it is open."""
        with self._engine.connect() as connection:
            query = sa.select(accounts.c.opened, accounts.c.opened_by, accounts.c.reason)
            row = connection.execute(query.where(accounts.c.account == account)).first()
        return None if row is None or row.opened is None else Circuit(row.opened, row.opened_by, row.reason)

    def open_circuit(self, use: Use, reason: str, since: float) -> bool:
        """The destination is down: this run and all that are under way send nothing more to the account.

        Args:
            since: When the trouble began, seconds since the epoch.

        Returns:
            False, and nothing is done, if the account has answered anybody since then.
        """
        with self._transaction() as tx:
            answered = sa.and_(
                batches.c.account == use.account,
                batches.c.closed > since,
                batches.c.status == BatchStatus.COMPLETED,
            )
            if tx.execute(sa.select(batches.c.id).where(answered).limit(1)).first() is not None:
                return False
            self._account(tx, use.account)
            values = {"opened": self.now(), "opened_by": use.run_id, "reason": reason}
            tx.execute(accounts.update().where(accounts.c.account == use.account).values(**values))
        return True

    def close_circuit(self, account: str, opened: float) -> None:
        """The destination answers again; does nothing if the circuit was opened anew since `opened`."""
        with self._transaction() as tx:
            where = sa.and_(accounts.c.account == account, accounts.c.opened == opened)
            tx.execute(accounts.update().where(where).values(opened=None, opened_by=None, reason=None))


_ACCOUNT = Prepared(sa.select(accounts).where(accounts.c.account == sa.bindparam("name")).with_for_update())
_QUOTAS = Prepared(sa.select(quotas).where(quotas.c.account == sa.bindparam("name")).with_for_update())
_SET_QUOTA = Prepared(
    quotas.update()
    .where(quotas.c.account == sa.bindparam("name"), quotas.c.seconds == sa.bindparam("window"))
    .values(arrival=sa.bindparam("arrival"), started=sa.bindparam("started"), used=sa.bindparam("used"))
)
_SET_PACE = Prepared(
    accounts.update()
    .where(accounts.c.account == sa.bindparam("name"))
    .values(**{name: sa.bindparam(name) for name in Pace().columns()})
)


def _pace(row: Any) -> Pace:
    return Pace(
        row.rate,
        row.ceiling,
        row.arrival,
        row.paced_since,
        row.granted,
        row.reduced_at,
        row.events,
        row.last_event,
        row.last_grant,
        row.confirmed,
    )


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
