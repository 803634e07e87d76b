"""Processes that answer queries, and the one that keeps them at work: what can't be cancelled ends with its process."""
