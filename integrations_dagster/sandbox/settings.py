"""What can be set while the sandbox runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from integrations_dagster.sandbox.quota import DEFAULT, Quotas


@dataclass(slots=True)
class Settings:
    """What `configure` changes; lost when the sandbox stops.

    Attributes:
        latency: Seconds that every answer takes at least.
        bodies: Whether request bodies are kept in the log.
        insert_bytes: Bytes of a body, decompressed, that `/inserts/` and `/jobs/` take.
        key_seconds: Seconds for which `/inserts/` remembers an idempotency key.
        job_seconds: Seconds from a job's submission to its last row's effect.
        token_requests, token_seconds, refresh_token_overlap: See `identity.TokenSettings`.
        quotas: The quotas of the paths that are counted.
    """

    latency: float = 0.0
    bodies: bool = False
    insert_bytes: int = 1_000_000
    key_seconds: float = 86_400.0
    job_seconds: float = 0.05
    token_requests: int = 0
    token_seconds: float = 1800.0
    refresh_token_overlap: bool = True
    quotas: Quotas = field(default_factory=Quotas)

    _QUOTA: ClassVar[tuple[str, ...]] = ("quota", "concurrency", "retry_style")
    _PLAIN: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "latency": float,
        "bodies": bool,
        "insert_bytes": int,
        "key_seconds": float,
        "job_seconds": float,
        "token_requests": int,
        "token_seconds": float,
        "refresh_token_overlap": bool,
    }

    def change(self, changes: Mapping[str, Any]) -> None:
        """Apply changes by name.

        Raises:
            ValueError: A name is unknown, or a value cannot be used; nothing is changed then.
        """
        known = {*self._PLAIN, *self._QUOTA}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no setting of the sandbox; known: {', '.join(sorted(known))}.")
        plain = {name: kind(changes[name]) for name, kind in self._PLAIN.items() if name in changes}
        negative = [name for name, value in plain.items() if value < 0]
        if negative:
            raise ValueError(f"{', '.join(negative)} must not be negative.")
        quotas = self._changed_quotas(changes)
        for name, value in plain.items():
            setattr(self, name, value)
        self.quotas = quotas

    def _changed_quotas(self, changes: Mapping[str, Any]) -> Quotas:
        if not set(changes) & set(self._QUOTA):
            return self.quotas
        merged = self.quotas.as_dict() | {name: changes[name] for name in self._QUOTA if name in changes}
        if "quota" in changes and "retry_style" not in changes:
            # `retry_after` of the new quota decides, not that of the one before.
            merged["retry_style"] = "none"
        windows = merged["quota"] or DEFAULT
        return Quotas(
            [windows] if isinstance(windows, Mapping) else windows, merged["concurrency"], merged["retry_style"]
        )

    def reset(self) -> None:
        """Back to what a fresh sandbox has."""
        fresh = Settings()
        for name in (*self._PLAIN, "quotas"):
            setattr(self, name, getattr(fresh, name))

    def as_dict(self) -> dict[str, Any]:
        """The settings as `configure` takes them."""
        return {name: getattr(self, name) for name in self._PLAIN} | self.quotas.as_dict()
