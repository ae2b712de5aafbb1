"""What Slurm does with a batch script, as far as a worker notices it; there is no Slurm here."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: The options of sbatch that this one knows: https://slurm.schedmd.com/sbatch.html
OPTIONS = {
    "--job-name": r"[\w-]+",
    "--ntasks": r"\d+",
    "--cpus-per-task": r"\d+",
    "--mem": r"\d+[KMGT]",
    "--gpus": r"(\w+:)?\d+",
    "--time": r"(\d+-)?\d+:\d\d:\d\d",
    "--output": r"[\w%.-]+",
    "--signal": r"([RB]{1,2}:)?[A-Z]+(@\d+)?",
    "--array": r"[\d,%-]+",
}


class _Sbatch(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise AssertionError(f"sbatch: {message}")


def directives(script: str) -> dict[str, str]:
    """Return what a script says to Slurm, which reads on only until the first command."""
    head = re.split(r"^[^#\n]", script, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [re.sub(r"\s#.*", "", line) for line in re.findall(r"^#SBATCH (.+)$", head, re.MULTILINE)]
    assert len(lines) == script.count("\n#SBATCH"), "sbatch does not see what stands behind a command"
    parser = _Sbatch(allow_abbrev=False, add_help=False)
    for option in OPTIONS:
        parser.add_argument(option)
    said = {f"--{name.replace('_', '-')}": value for name, value in vars(parser.parse_args(lines)).items() if value}
    for option, value in said.items():
        assert re.fullmatch(OPTIONS[option], value), f"sbatch: {option}={value}"
    return said


@dataclass
class Submitted:
    """A batch script that runs. ``log``: its output."""

    process: subprocess.Popen[bytes]
    said: dict[str, str]
    log: Path

    def time_is_nearly_over(self) -> None:
        """Send the signal of ``--signal``: to the batch shell alone if it says ``B:``."""
        whom, _, rest = self.said["--signal"].rpartition(":")
        assert whom == "B", "without it the shell hears nothing, only what srun started"
        self.process.send_signal(signal.Signals[f"SIG{rest.partition('@')[0]}"])


def sbatch(script: Path, *words: str, folder: Path, environment: Mapping[str, str]) -> Submitted:
    """Run a script from a folder, as a copy that lies elsewhere, as Slurm does."""
    said = directives(script.read_text(encoding="utf-8"))
    spool = folder / "spool"
    spool.mkdir()
    copy = shutil.copy(script, spool / "slurm_script")
    log = folder / said["--output"].replace("%j", "17")
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["/bin/bash", copy, *words],
            cwd=folder,
            env={**os.environ, **environment, "SLURM_JOB_ID": "17"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Submitted(process, said, log)
