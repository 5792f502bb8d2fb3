"""Which process of a run on several devices this is, and how all of them find one run folder.

Lightning starts the other processes by running the same command line again, with LOCAL_RANK set.
"""

import os
from pathlib import Path

from exp.config.schema import TrainConfig
from exp.errors import ConfigError
from exp.publish import clean_staging
from exp.rundir import RunDir, create_run_dir, open_run_dir

RUN_DIR_VARIABLE = "EXP_RUN_DIR"


def in_first_process() -> bool:
    """Tell whether this process is the one that talks and writes."""
    return local_rank() == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def local_rank() -> int:
    """Number this process among those of this machine, which is also its device's number."""
    return int(os.environ.get("LOCAL_RANK", 0))


def join_run_dir(config: TrainConfig) -> RunDir:
    """Make the run folder, open the one that is resumed, or join the first process'."""
    if not in_first_process():
        if RUN_DIR_VARIABLE not in os.environ:
            raise ConfigError(
                "This is a further process of a run, and its first one was not started by exp.",
                where=f"LOCAL_RANK={local_rank()}",
                fix="exp train hardware.devices=<n>, without torchrun: it starts its own processes",
            )
        return RunDir(Path(os.environ[RUN_DIR_VARIABLE]))
    if config.training.resume is not None:
        run = open_run_dir(config.training.resume)
        clean_staging(run.checkpoints)
    else:
        parent = config.output_dir or str(Path("outputs") / config.task.name)
        run = create_run_dir(Path(parent).expanduser().resolve(), config.name)
    os.environ[RUN_DIR_VARIABLE] = str(run.path)
    return run
