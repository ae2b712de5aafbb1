"""A node on another machine, from a manager to its end: pyacq's seven steps.

Start a host first, see README.md; then: python examples/hosts/steps.py
"""

import sys

import celerypipe


def main() -> None:
    """Take the steps, on the first host that is up or on the one that is named."""
    # 1. A manager, and with it the end of all that it starts.
    with celerypipe.Manager() as manager:
        # 2. A host: a machine on which `celerypipe host` runs.
        names = sys.argv[1:] or list(manager.hosts)
        if not names:
            raise SystemExit("no host is up: start one as README.md says, and see `celerypipe hosts`")
        host = manager.hosts[names[0]]
        print(f"{host.name}: {host.status().machine.cores:g} cores, queues {host.status().queues}")

        # 3. A node group: a worker with one process there.
        group = host.start("cpu", count=1, pool="solo")

        # 4. A node in it, made and warm.
        node = group.create_node("passthrough_identity", name="hold", delay=0)

        # 5. Its arguments, given anew; what it is linked with is said by a pipeline.
        node.configure(delay=0.1)

        # 6. Warmed up, and started.
        node.initialize()
        node.start()
        for number in range(3):
            (answer,) = node.ask(celerypipe.Message(number))
            print(f"{node.name} sent {answer.payload}")

        # 7. Stopped; leaving the block ends the worker, and the host stays.
        node.stop()
        print(f"{node.name} is {node.state}")


if __name__ == "__main__":
    main()
