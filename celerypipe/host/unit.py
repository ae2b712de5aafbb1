"""The systemd unit of a host."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

_UNIT = """\
# {path}
# celerypipe host {name}. Install it:
#   celerypipe host --name {name} --print-unit | sudo tee {path}
#   sudo systemctl daemon-reload && sudo systemctl enable --now celerypipe-host-{name}
# The address of Redis, and the keys, stand in a file that only its owner reads:
#   CELERYPIPE_REDIS_URL=redis://:PASSWORD@redis-host:6379/0
[Unit]
Description=celerypipe host {name}
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
User={user}
WorkingDirectory={here}
EnvironmentFile=-/etc/celerypipe/{name}.env
ExecStart={command}
Restart=always
RestartSec=5
# The host ends its workers itself; those that were started with --detach stay.
KillMode=process
TimeoutStopSec=30
# A worker out of memory is started again by its host.
OOMPolicy=continue
# 75 and 70 may pass; a wrong list or address does not.
RestartPreventExitStatus=78

[Install]
WantedBy=multi-user.target
"""


def unit(name: str, config: Path, state: Path | None) -> str:
    """Return the text of a unit that runs this host, in the folder and with the Python of now."""
    command = [sys.executable, "-m", "celerypipe", "host", "--name", name, "--config", str(config)]
    if state is not None:
        command += ["--state", str(state.absolute())]
    return _UNIT.format(
        path=f"/etc/systemd/system/celerypipe-host-{name}.service",
        name=name,
        user=getpass.getuser(),
        here=_escaped(os.getcwd()),
        command=" ".join(map(_quoted, command)),
    )


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """As systemd reads a word of a command line."""
    text = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if any(map(str.isspace, text)) or '"' in text or "'" in text else text
