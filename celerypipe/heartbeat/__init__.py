"""The heartbeat of a worker or a runner: a process of its own says in Redis, once a second, which processes live."""
