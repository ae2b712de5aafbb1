"""What a worker writes down for the processes that it spawns: unlike forked ones they inherit nothing."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path

from celerypipe.celery.prefork import is_retiring
from celerypipe.contract.programs import read_programs, written_programs
from celerypipe.heartbeat.deadlines import Deadlines
from celerypipe.process.activity import Activity
from celerypipe.redis import keys
from celerypipe.redis.url import read_address
from celerypipe.settings import Settings
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.activation.quota import Limits
from celerypipe.worker.activation.shelf import Bounds
from celerypipe.worker.flag import SharedFlag
from celerypipe.worker.logs import outlet
from celerypipe.worker.served import Served


def written(served: Served, worker: Worker, flag: str) -> str:
    """Return what a spawned process of this worker is told, in its environment."""
    names = ("queues", "host", "pool", "slots", "stuck_after", "keeps_interrupted", "life", "patience")
    facts = {name: getattr(worker, name) for name in names}
    folders = {name: [str(folder) for folder in getattr(served, name)] for name in ("plugins", "allowed")}
    facts["keep_warm"] = [None if each == math.inf else each for each in worker.keep_warm]
    facts |= {"redis": worker.redis.url, "namespace": worker.redis.namespace}
    facts["deadlines"] = worker.deadlines.path if worker.deadlines is not None else ""
    facts["lines"] = outlet.path
    plan = {"worker": facts, "limits": asdict(worker.limits), "imports": served.imports, **folders, "flag": flag}
    return json.dumps({**plan, "programs": written_programs(served.programs)})


def read(text: str) -> tuple[Worker, Served, SharedFlag]:
    """Return what such a process serves, out of that text, and the flag; keys come from its own environment."""
    plan = json.loads(text)
    flag = SharedFlag(plan["flag"])
    facts = plan["worker"]
    path, lines = facts.pop("deadlines"), facts.pop("lines")
    bounds = Bounds(*(math.inf if each is None else each for each in facts.pop("keep_warm")))
    worker = Worker(
        redis=replace(read_address(facts.pop("redis")), namespace=facts.pop("namespace")),
        **{**facts, "queues": tuple(facts["queues"])},
        shutting_down=lambda: flag.is_raised() or is_retiring(),
        urgent=flag.is_urgent,
        deadlines=Deadlines(os.open(path, os.O_RDWR)) if path else None,
        keyring=Settings.from_environment().keyring,
        limits=Limits(**plan["limits"]),
        replacing=keys.SPAWNING_TTL,
        keep_warm=bounds,
        activity=Activity.asked_for(os.environ),
    )
    outlet.reach(lines, worker.redis.password)
    plugins, allowed = (tuple(Path(folder) for folder in plan[name]) for name in ("plugins", "allowed"))
    return worker, Served(tuple(plan["imports"]), plugins, allowed, read_programs(plan["programs"])), flag
