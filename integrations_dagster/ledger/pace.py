"""How fast an account may be asked where no quota is published, or the published one does not hold: learned.

Pure: times come in as arguments. The rate grows while nothing is refused, quickly where no ceiling is known, slowly
near one; it falls to 0.9 of what was accepted when the destination throttles. (Halving it uses three quarters of a
quota.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

FIRST_RATE = 30.0
"""Requests per second with which an account begins of which nothing is known."""
FIRST_GROWTH = 1.0
"""Growth per second from there, while the rate is what requests wait for: it doubles in 0.7 seconds. Whatever quota it
meets, few requests are on their way then; a burst would be refused by the dozen."""
UNPACED = 500.0
"""Requests per second beyond which an account that has refused nothing is not paced any more."""
FALL = 0.9
"""The new rate, as a share of the accepted one, after a refusal."""
SLOWEST = 0.2
"""Requests per second below which no pace falls."""
FAST = 0.20
"""Growth per second while no ceiling is known."""
NEAR = 0.97
"""The share of a known ceiling up to which the rate grows fast."""
CREEP = 0.002
"""Growth per second from there on: a quarter of a minute from `NEAR` to the ceiling; halved each time that the ceiling
is confirmed."""
SAME = 0.05
"""How far, as a share, two ceilings may differ to confirm each other."""
FORGET = 60.0
"""Seconds without use after which the ceiling is tried again as if it had never been confirmed."""
BEYOND = 1.05
"""Above this share of the ceiling without a refusal, the ceiling is forgotten: the account's limit was raised."""
SETTLED = 1.0
"""Seconds at a rate after which a refusal says that it is too high; sooner, it is the echo of an earlier burst."""
LONGEST_GAP = 1.0
"""Seconds between two grants that count as use of the rate; a rate that nobody uses does not grow."""
FIRST_BLOCK = 0.3
"""Seconds of silence after a refusal that does not say how long to wait; doubled while refusals follow each other."""
LONGEST_BLOCK = 30.0
FULL_WINDOW = 1.0
"""Seconds of silence after the first refusal of all, which a burst has met: the window is full."""
GUESSED = -3
"""`confirmed` of a ceiling that was only guessed: eight times the creep."""
CALM = 2.0
"""Seconds without a refusal after which the next one is a new event, not a consequence of the last."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The learned pace of one account.

    Attributes:
        rate: Requests per second; None while nothing was ever refused, or once `UNPACED` was reached without.
        ceiling: The rate at which the destination last refused, or None.
        arrival: Theoretical arrival time of the next request (GCRA without burst), seconds since the epoch.
        paced_since: Since when the rate has been in force.
        granted: Requests granted while there was a rate.
        reduced_at: `granted` when the rate was last reduced: refusals of earlier requests say nothing new.
        events: Refusals in a row, each soon after the other.
        last_event: Time of the last refusal.
        last_grant: Time for which the last request was granted.
        confirmed: How often the ceiling was met again.
    """

    rate: float | None = None
    ceiling: float | None = None
    arrival: float = 0.0
    paced_since: float = 0.0
    granted: int = 0
    reduced_at: int = 0
    events: int = 0
    last_event: float = 0.0
    last_grant: float = 0.0
    confirmed: int = 0

    @classmethod
    def first(cls, now: float) -> Pace:
        """The pace of an account of which nothing is known."""
        return cls(rate=FIRST_RATE, arrival=now, paced_since=now, last_grant=now)

    def columns(self) -> dict[str, Any]:
        """Each attribute by its name, for every batch: `dataclasses.asdict` takes five times as long."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def begins(self) -> bool:
        """Whether the account has refused nothing yet."""
        return self.events == 0 and self.ceiling is None

    def grant(self, earliest: float) -> tuple[float, Pace]:
        """When the next request may be sent, at `earliest` or later, and the pace after it."""
        if self.rate is None:
            return earliest, self
        at = max(earliest, self.arrival)
        idle = at - self.last_grant
        if self.begins:
            # Nobody has tried the rate while requests come later than it allows.
            rate = self.rate * (1 + FIRST_GROWTH * max(idle, 0.0)) if self.arrival >= earliest else self.rate
            if rate > UNPACED:
                return at, Pace(granted=self.granted + 1, reduced_at=self.granted + 1)
            return at, replace(self, rate=rate, arrival=at + 1 / rate, granted=self.granted + 1, last_grant=at)
        rate, ceiling = self._grown(min(max(idle, 0.0), LONGEST_GAP))
        return at, replace(
            self,
            rate=rate,
            ceiling=ceiling,
            arrival=at + 1 / rate,
            granted=self.granted + 1,
            last_grant=at,
            confirmed=0 if idle > FORGET else self.confirmed,
        )

    def _grown(self, seconds: float) -> tuple[float, float | None]:
        assert self.rate is not None
        if self.ceiling is None:
            return self.rate * (1 + FAST * seconds), None
        if self.rate > BEYOND * self.ceiling:
            return self.rate, None
        near = NEAR * self.ceiling
        if self.rate < near:
            return min(self.rate * (1 + FAST * seconds), near), self.ceiling
        return self.rate * (1 + CREEP / 2**self.confirmed * seconds), self.ceiling

    def refused(self, now: float, serial: int, last_second: int, lately: float) -> tuple[float, Pace]:
        """The destination throttled a request.

        Args:
            now: Seconds since the epoch.
            serial: `granted` when that request was granted.
            last_second: Requests that the account accepted during the last second. No destination counts in a shorter
                window, so this is its limit where it counts in seconds, or is paced evenly.
            lately: Requests per second that it accepted over a longer time.

        Returns:
            Seconds of silence where the answer names none, and the pace from now on.
        """
        if self.rate is not None and serial <= self.reduced_at:
            return 0.0, self  # an echo: sent before the rate was reduced
        events = self.events + 1 if now - self.last_event < CALM else 1
        block = min(FIRST_BLOCK * 2 ** (events - 1), LONGEST_BLOCK)
        ceiling, confirmed = self.ceiling, self.confirmed
        if self.rate is None or self.begins:
            # A first guess: what was sent at once until the destination refused is its limit, if it counts in seconds.
            known = ceiling = float(max(last_second, 1))
            confirmed, block = GUESSED, FULL_WINDOW
        elif events > 1 or now - self.paced_since < SETTLED:
            # What was accepted of late says little after a silence: not all at once.
            known = min(self.rate, max(lately, self.rate / 2))
        else:
            known = ceiling = min(self.rate, float(max(last_second, 1)))
            same = self.ceiling is not None and abs(ceiling - self.ceiling) <= SAME * self.ceiling
            confirmed = min(confirmed + 1, 10) if same else 0
        return block, replace(
            self,
            rate=max(FALL * known, SLOWEST),
            ceiling=ceiling,
            arrival=now,
            paced_since=now + block,
            reduced_at=self.granted,
            events=events,
            last_event=now,
            last_grant=now,
            confirmed=confirmed,
        )
