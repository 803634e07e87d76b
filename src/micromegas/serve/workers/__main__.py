"""A worker as a process: `python -m micromegas.serve.workers FD PARENT`, started by a supervisor only."""

import sys

from micromegas.serve.workers.worker import run_worker

run_worker(int(sys.argv[1]), int(sys.argv[2]))
