"""Keeps partitions fresh, merges small ones, and forgets what is old.

It must never be needed for a right answer: queries see what it has not done yet. Any number of daemons may run on one
lake, and each may be killed at any instant.
"""

from micromegas.daemon.daemon import Daemon

__all__ = ["Daemon"]
