"""A model that fails in the way that its setting `fault` says, as the text of a plugin; `MENDED` ends all faults."""

FAULTY = """
import os, resource, signal, sys, time
from pathlib import Path

import torch


class Net(torch.nn.Module):
    def __init__(self, num_features, eta_dim, fault="none"):
        super().__init__()
        self.layer, self.fault = torch.nn.Linear(num_features, eta_dim), fault

    def forward(self, x):
        # A plugin is tried before its run begins.
        has_begun = self.fault not in ("slow", "deaf") or any(Path("s").glob("*/config.yaml"))
        if self.training and has_begun and not os.environ.get("MENDED"):
            getattr(self, self.fault)()
        return self.layer(x)

    def none(self):
        pass

    def error(self):
        raise ValueError("no such luck")

    def leave(self):
        sys.exit(0)

    def abort(self):
        os.abort()

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def vanish(self):
        os._exit(0)

    def memory(self):
        resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
        torch.empty(2**40, dtype=torch.uint8)

    def worker(self):
        if not os.path.exists("once"):
            open("once", "w").close()
            os.kill(os.getppid(), signal.SIGKILL)

    def slow(self):
        Path("started").write_text(str(os.getpid()))
        time.sleep(0.05)

    def deaf(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.slow()
        time.sleep(600)
"""
