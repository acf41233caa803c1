"""Starting several processes of the same command on this machine, by torchrun's own machinery."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch

from danlu.core.errors import DanluError

__all__ = ["ENDED", "launch"]

ENDED = "DANLU_ENDED"
"""The variable that names a file: the first process leaves there the exit code that the whole command ends with."""


def launch(words: Sequence[str], n: int, restarts: int) -> int:
    """Run a danlu command in n processes that train together, and wait for it.

    Args:
        words: The command's words.
        n: How many processes.
        restarts: How often all are started again, from the last checkpoint, when one of them has died.

    Returns:
        The exit code with which the first process ended; it has said all there is to say.

    Raises:
        DanluError: A process died.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it has to say is said below
    os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // n))
    if sys.platform == "linux" and not torch.cuda.is_available():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=restarts,
    )
    with tempfile.TemporaryDirectory() as folder:
        ended = Path(folder) / "exit-code"
        os.environ[ENDED] = str(ended)
        try:
            elastic_launch(config, sys.executable)("-m", "danlu", *words)
        except ChildFailedError as error:
            if not ended.exists():
                rank, failure = error.get_first_failure()
                how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else "failed"
                raise DanluError(
                    f"process {rank} of {n} {how} (exit code {failure.exitcode}); the others were stopped",
                    where="training",
                    advice="the same command goes on from the last checkpoint; what the process itself said is above",
                ) from error
        return int(ended.read_text())
