#!/usr/bin/env bash
# A run on several nodes, one process a GPU, that goes on by itself after preemption and at the end of its time.
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/dinov2.py:imagenet --config.host.fsdp=8 --workdir=/shared/runs/dinov2
#
# Submit from the clone, whose .venv all nodes see; the workdir too must be on a file system that all nodes share.
#SBATCH --job-name=ssl_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@300
set -euo pipefail

out_of_time=
# Five minutes before the end: the processes save and stop, then the job is queued again.
trap 'out_of_time=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
# Preempted: SLURM tells the processes and queues the job again itself; the batch script waits for them to save.
trap 'true' TERM

srun --kill-on-bad-exit=1 .venv/bin/python -m experiments.pretrain --distributed "$@" &
step=$!
code=0
wait "$step" || code=$?
# A signal interrupts the waiting, not the step.
while kill -0 "$step" 2>/dev/null; do
  code=0
  wait "$step" || code=$?
done
if [ "$code" -gt 128 ]; then
  code=0
  wait "$step" || code=$?
fi
if [ -n "$out_of_time" ] && [ "$code" -eq 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
