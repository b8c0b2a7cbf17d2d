"""Saves a checkpoint again and again while its n-th write fails, for every n; `failing.so` is preloaded.

    LD_PRELOAD=failing.so python failing_writes.py FOLDER MOST

prints a line of JSON for every n and every kind of failure: what was said, and what was there afterwards.
"""

import contextlib
import ctypes
import errno
import json
import sys
import warnings
from pathlib import Path

import numpy as np

from jkd import files
from jkd.errors import UserError
from jkd.train import checkpoint
from jkd.train.state import TrainState

KINDS = {"full": (errno.ENOSPC, -1), "EIO once": (errno.EIO, 1), "EIO": (errno.EIO, -1)}


def state(step: int) -> TrainState:
    params = {"kernel": np.full((50, 50), step, np.float32)}
    return TrainState(np.uint32(step), params, {}, {}, {"mu": params}, {})


def main(folder: Path, most: int) -> None:
    warnings.simplefilter("ignore")
    files.PAUSES = (0.02, 0.05, 0.1)
    library = ctypes.CDLL(None)
    off = (str(folder).encode(), 0, 0, 0)
    checkpoint.save(folder, state(1), "x")
    library.failing(*off)
    checkpoint.save(folder, state(2), "x")
    writes = library.failed()
    assert writes > 5, writes
    step = 2
    for kind, (number, count) in KINDS.items():
        for at in sorted(
            {1 + index * writes // most for index in range(most)} if most < writes else range(1, writes + 1)
        ):
            said = ""
            library.failing(str(folder).encode(), at, count, number)
            try:
                checkpoint.save(folder, state(step + 1), "x")
            except UserError as error:
                said = str(error)
            hit = library.failed() >= at
            library.failing(*off)
            restored = checkpoint.restore(folder, state(0), "x")
            line = {"kind": kind, "at": at, "hit": hit, "said": said, "before": step, "restored": int(restored.step)}
            with contextlib.suppress(UserError):
                checkpoint.save(folder, state(step + 1), "x")
                step += 1
            line["after"] = int(checkpoint.restore(folder, state(0), "x").step) - line["before"]
            line["left"] = sorted(path.name for path in folder.iterdir() if not path.stem.isdigit())
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
