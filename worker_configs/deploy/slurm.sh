#!/bin/bash
# A worker of a queue in an allocation of Slurm, from the folder of the project, where .venv is:
#   sbatch worker_configs/deploy/slurm.sh gpu
#   sbatch --array=1-8 worker_configs/deploy/slurm.sh gpu      eight of them
#   scancel --batch --signal=TERM JOB                          it finishes what it has in hand, and ends
# celerypipe.env in the same folder, which only you can read, has the line
#   CELERYPIPE_REDIS_URL=redis://:PASSWORD@redis.example:6379/0
#SBATCH --job-name=celerypipe
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --gpus=1
#SBATCH --time=04:00:00
#SBATCH --output=celerypipe-%j.log
# 120 s before the time is over the worker is told to end. It takes no more messages; what it has in hand has
# worker_soft_shutdown_timeout for it: write 100 in worker_configs/<queue>.toml (10 s otherwise). Then other workers get it.
#SBATCH --signal=B:TERM@120
set -euo pipefail
queue=${1:?which queue: sbatch slurm.sh gpu}
while IFS= read -r line || [[ $line ]]; do  # as systemd and containers read such a file: nothing in it is run
    if [[ $line == [A-Z]*=* ]]; then export "${line?}"; fi
done <celerypipe.env
# Slurm tells this process, so it has to become the worker.
exec .venv/bin/celerypipe worker -Q "$queue"
