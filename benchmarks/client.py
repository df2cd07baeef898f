"""The harness's end of a worker process."""

import json
import os
import subprocess
from pathlib import Path


class Worker:
    """A worker of one side; `ask` sends a command and returns the answer.

    Args:
        python: The interpreter.
        side: A name of `benchmarks.worker.SIDES`.
        threads: Of the libraries that read it from the environment.
        log: What the worker prints.
        root: The checkout that it runs in; None: this one.
    """

    def __init__(self, python: str, side: str, *, threads: int, log: Path, root: Path | None = None):
        root = root or Path(__file__).parent.parent
        threads_text = str(threads)
        environment = os.environ | {
            "PYTHONPATH": str(root),
            "OMP_NUM_THREADS": threads_text,
            "MKL_NUM_THREADS": threads_text,
            "OPENBLAS_NUM_THREADS": threads_text,
        }
        self.side, self._log = side, log.open("w")
        self._process = subprocess.Popen(
            [python, "-u", "-W", "ignore", "-m", "benchmarks.worker", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=root,
            env=environment,
        )

    def ask(self, op: str, **fields):
        """Send a command and return its answer; a worker that died answers with its last words."""
        try:
            self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"ok": False, "error": self._last_words()}

    def _last_words(self):
        self._process.wait(timeout=30)
        lines = Path(self._log.name).read_text().strip().splitlines()
        return ": ".join(["the worker process ended", *lines[-1:]])[:300]

    def close(self):
        """End the process."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait(timeout=30)
        self._log.close()
