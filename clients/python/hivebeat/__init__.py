"""A hivebeat worker: beats to the hive of its machine, over NATS.

    from hivebeat import Worker

    with Worker("gpu-01", "llama", model="Llama-3.3-70B", slots=8, state="loading") as worker:
        with worker.quiet(300):
            load()
        worker.state("ready")
        serve(worker)

A background thread beats; no method of a Worker waits for the network, except for the bounded
waits that stop, failed and quiet describe. The package needs only the standard library.
"""

from ._facts import Facts
from ._version import __version__
from .worker import Quiet, Worker

__all__ = ["Facts", "Quiet", "Worker", "__version__"]
