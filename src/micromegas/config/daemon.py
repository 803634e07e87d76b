"""Rhythm and horizon of the daemon. It must never hold state: what was done is read from the lake."""

from __future__ import annotations

from dataclasses import dataclass, field

from micromegas.config.retention import RetentionPolicies

MIN_SWEEP_AGE_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """How often the tiers run and how long telemetry is kept.

    * `retention_days`: blocks, their payloads and partitions older than this (by insert time) are deleted, where
      `policies` don't say otherwise.
    * `lease_ttl_s`: a daemon that does not renew for so long loses its tier to another.
    * `sweep_age_s`: an object without any row is deleted only when older than this; at least 20 minutes, as a writer
      has 10 to bring the row of an object that it wrote.
    """

    retention_days: int = 90
    policies: RetentionPolicies = field(default_factory=RetentionPolicies)
    tick_s: float = 1.0
    lease_ttl_s: float = 10.0
    sweep_interval_s: float = 300.0
    sweep_age_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.retention_days < 1:
            raise ValueError(f"retention of {self.retention_days} days: at least one day is kept")
        if min(self.tick_s, self.lease_ttl_s, self.sweep_interval_s, self.sweep_age_s) <= 0:
            raise ValueError("daemon intervals must be positive")
        if self.sweep_age_s < MIN_SWEEP_AGE_S:
            raise ValueError(f"objects younger than {MIN_SWEEP_AGE_S:g} s may still get their rows")
