"""Sources that loader processes, which import this file by name, die or hang on."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from jkd.data.sources import ArraySource


class Trap(ArraySource):
    """Does something when the image `at` is asked for: once (a file says that it did), or always."""

    def __init__(self, what: str, at: int, folder: str, always: bool = False) -> None:
        pixels = np.arange(64, dtype=np.uint8).reshape(64, 1, 1, 1)
        super().__init__("set", ["a", "b"], [f"train/{i}" for i in range(64)], np.arange(64) % 2, pixels)
        self.what, self.at, self.folder, self.always = what, at, folder, always

    def images(self, index: np.ndarray) -> np.ndarray:
        flag = Path(self.folder) / "sprung"
        if self.at in index and (self.always or not flag.exists()):
            flag.write_text(str(os.getpid()))
            if self.what == "sleep":
                time.sleep(3600)
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "crash": signal.SIGSEGV}[self.what])
        return super().images(index)
