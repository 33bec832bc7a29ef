"""Cells on a cluster, through submitit: each is a job that runs the same command as a process here would."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwmfw.errors import UserError

if TYPE_CHECKING:
    from lwmfw.sweep.jobs import Start

_INTERRUPTED = 143
"""What a job comes to that was cancelled, ran out of time or lost its node: the cell goes on when it is asked for."""


class ClusterJob:
    """A job of submitit as `jobs.Job` has it."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        """Its exit code; None: it waits or runs."""
        import submitit

        if not self._job.done():
            return None
        try:
            return int(self._job.result())
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
            return _INTERRUPTED

    def terminate(self) -> None:
        """Cancel it: Slurm sends SIGTERM, of which a run keeps where it is."""
        self._job.cancel(check=False)


def call(command: list[str], log: str) -> int:
    """Run a command where the job is, and return its exit code."""
    with open(log, "ab") as stream:
        return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)  # noqa: S603 - ours


def start_on_cluster(folder: Path, threads: int, cluster: str = "slurm") -> Start:
    """What starts commands as jobs, whose own files lie in a folder.

    Partition, time and GPUs are those of the environment (SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GPUS, ...), which
    Slurm puts before what submitit writes.

    Args:
        folder: for submitit's files.
        threads: cores of a job; 0: what the cluster gives.
        cluster: "slurm"; "local" is for tests.

    Raises:
        UserError: submitit is not installed, or there is no Slurm.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError('--slurm: needs submitit; pip install "lwmfw[slurm]"') from error
    if cluster == "slurm" and submitit.SlurmExecutor.affinity() < 0:
        raise UserError("--slurm: there is no Slurm here, srun is not found; leave --slurm out to run here")

    @cache
    def executor() -> Any:  # which makes its folder
        made = submitit.AutoExecutor(folder=folder, cluster=cluster)
        made.update_parameters(name="lwmfw", **({"cpus_per_task": threads} if threads else {}))
        return made

    return lambda command, log: ClusterJob(executor().submit(call, command, str(log.absolute())))
