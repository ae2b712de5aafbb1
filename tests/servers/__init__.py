"""Real servers for the tests, and other real processes: what starts them, breaks them and waits for them."""

from tests.servers.checkout import ROOT
from tests.servers.patience import PATIENCE, eventually
from tests.servers.redis import RedisServer
from tests.servers.worker import FEW_POOLS, POOLS, RunningWorker, StartWorker, launch_worker
from tests.servers.workplace import Workplace, Write

__all__ = [
    "FEW_POOLS",
    "PATIENCE",
    "POOLS",
    "ROOT",
    "RedisServer",
    "RunningWorker",
    "StartWorker",
    "Workplace",
    "Write",
    "eventually",
    "launch_worker",
]
