"""juturna's own ``remotize`` service for the no-op node, on 127.0.0.1: ``python -m benchmarks.peers.juturna_server``.

Its command listens on every interface and takes no address, so the one call that opens the port is led elsewhere. All
else is its own: builder, servicer, dispatcher, ten threads.
"""

import argparse
import logging
from typing import Any

import grpc
from juturna.cli.commands import _juturna_remote_service as service

PLUGINS = "benchmarks/peers/juturna_plugins"
WORKERS = 10


def loopback_server(*arguments: Any, **options: Any) -> grpc.Server:
    """grpc.server, but it opens its ports on 127.0.0.1."""
    server = grpc.server(*arguments, **options)
    open_port = server.add_insecure_port
    server.add_insecure_port = lambda address: open_port(address.replace("[::]", "127.0.0.1"))
    return server


class LoopbackGrpc:
    """The grpc module with that one function changed."""

    server = staticmethod(loopback_server)

    def __getattr__(self, name: str) -> Any:
        return getattr(grpc, name)


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    service.grpc = LoopbackGrpc()
    logging.getLogger().setLevel(logging.WARNING)  # at INFO it would write lines for each message
    service.serve(
        argparse.Namespace(
            default_config=None,
            node_name="noop",
            node_mark="noop",
            plugin_dir=PLUGINS,
            pipe_name=f"warped{options.port}",
            port=options.port,
            max_workers=WORKERS,
        )
    )


if __name__ == "__main__":
    main()
