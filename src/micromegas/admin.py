"""Partitions that another version wrote, by the names that the original's client has; for administrators."""

from micromegas.client.incompatible import list_incompatible_partitions, retire_incompatible_partitions

__all__ = ["list_incompatible_partitions", "retire_incompatible_partitions"]
