"""A side of the comparison in a process of its own: reads one JSON command a line, answers one a line.

    python -m benchmarks.worker SIDE

Commands: `open` (network, weights, images, case, tuned, precision) prepares a run, `run` times it, `save`
writes its last result for comparison, `close` forgets it. Imports nothing of the other side, so that each
interpreter needs only its own packages.
"""

import importlib
import json
import os
import sys
import time
import traceback

from . import machine

SIDES = {
    "jaxai": "benchmarks.ours",
    "jaxai-ascent": "benchmarks.ascent_ours",
    "captum": "benchmarks.peers.captum_side",
    "pytorch-grad-cam": "benchmarks.peers.grad_cam_side",
    "lime": "benchmarks.peers.lime_side",
    "shap": "benchmarks.peers.shap_side",
    "zennit": "benchmarks.peers.zennit_side",
    "torch-lucent": "benchmarks.peers.lucent_side",
    "xplique": "benchmarks.peers.xplique_side",
    "pytorch": "benchmarks.peers.pytorch_side",
    "torch.compile": "benchmarks.peers.compiled_side",
    "pytorch-ascent": "benchmarks.peers.ascent_side",
    "variance": "benchmarks.peers.variance_side",
    "overhead": "benchmarks.peers.overhead_side",
    "imported": "benchmarks.peers.imported_side",
    "concepts": "benchmarks.peers.concepts_side",
    "craft": "benchmarks.peers.craft_side",
    "quantus": "benchmarks.peers.quantus_side",
}


class Session:
    """The run that is open, and its last result."""

    def __init__(self, side):
        self.side, self.run, self.result = side, None, None

    def handle(self, command):
        """Carry out one command and return the answer's fields."""
        if command["op"] == "open":
            self.result = None
            self.run = self.side.prepare(command)
            note = getattr(self.side, "note", lambda case: "")
            return {"offered": self.run is not None, "note": note(command["case"])}
        if command["op"] == "run":
            start = time.perf_counter()
            self.result = self.run()
            return {"seconds": time.perf_counter() - start}
        if command["op"] == "save":
            import numpy as np

            np.save(command["path"], np.asarray(self.result, np.float32))
            return {"peak_memory": machine.peak_memory()}
        if command["op"] == "close":
            self.run = self.result = None
            return {}
        if command["op"] == "about":
            return {"versions": machine.versions(*self.side.PACKAGES), "about": self.side.about()}
        raise ValueError(f"unknown command {command['op']!r}")


def main():
    """Answer commands until the input ends."""
    # Libraries print; the answers go to the real standard output, all else to the error stream.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session(importlib.import_module(SIDES[sys.argv[1]]))
    for line in sys.stdin:
        try:
            answer = {"ok": True, **session.handle(json.loads(line))}
        except Exception as error:
            traceback.print_exc()
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
