"""``python -m celerypipe.worker -Q gpu``: what ``celery -A celerypipe worker -Q gpu`` starts, sooner.

Celery's own command line imports each of its other commands and what is plugged into it (Flower, an interactive shell):
a third of a worker's boot, which none of them serves. ``Embedded`` starts its workers so.
"""

from __future__ import annotations

from celery.bin.base import CLIContext
from celery.bin.worker import worker

from celerypipe.celery.application import app


def main() -> None:
    """Run the worker that the command line describes."""
    worker.params.extend(app.user_options["worker"])
    worker(obj=CLIContext(app=app, no_color=False, workdir=None), auto_envvar_prefix="CELERY_WORKER")


if __name__ == "__main__":
    main()
