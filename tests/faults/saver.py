"""A process that does nothing but save checkpoints, killed at a random moment of a save and started again.

    python saver.py ROOT TRIALS SEED

prints a line of JSON a trial: at which save and how far into it the kill came, what it left, and the digests of the
resumed run and of an unbroken one.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from flax import serialization

from jkd import digest
from jkd.train import checkpoint
from jkd.train.state import TrainState

SAVES, WIDTH, INPUTS = 6, 300, "made of this"


def first() -> TrainState:
    params = {"kernel": np.ones((WIDTH, WIDTH), np.float32), "bias": np.zeros(WIDTH, np.float32)}
    return TrainState(np.uint32(0), params, {}, {}, {"mu": params}, {})


def advance(state: TrainState) -> TrainState:
    step = int(state.step) + 1
    drift = np.random.default_rng(step).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    params = {"kernel": state.params["kernel"] * np.float32(0.5) + drift, "bias": state.params["bias"] + 1}
    return state.replace(step=np.uint32(step), params=params, opt_state={"mu": state.params})


def train(folder: Path, tell: int) -> None:
    """From the newest checkpoint to the last step; tells when a save begins and ends, then the digest."""
    state = checkpoint.restore(folder, first(), INPUTS) or first()
    while int(state.step) < SAVES:
        state = advance(state)
        os.write(tell, b"(")
        checkpoint.save(folder, state, INPUTS)
        os.write(tell, b")")
    os.write(tell, digest.of_tree(serialization.to_state_dict(state)).encode())


def start(folder: Path) -> tuple[int, int]:
    """A child at work on `folder`: its process id, and a pipe with what it tells."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ear)
        try:
            train(folder, mouth)
        finally:
            os._exit(0)
    os.close(mouth)
    return child, ear


def finish(folder: Path) -> str:
    """The digest that a run on `folder` ends in."""
    child, ear = start(folder)
    told = b""
    while piece := os.read(ear, 1000):
        told += piece
    os.close(ear)
    os.waitpid(child, 0)
    return told.decode().strip("()")


def killed(folder: Path, save: int, delay: float) -> bool:
    """Starts a run and kills it so long after its save number `save` began; whether that was inside the save."""
    child, ear = start(folder)
    begun = 0
    while begun < save and (piece := os.read(ear, 1)):
        begun += piece == b"("
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    rest = b""
    while piece := os.read(ear, 1000):
        rest += piece
    os.close(ear)
    return b")" not in rest


def main(root: Path, trials: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    begun = time.monotonic()
    whole = finish(root / "whole")
    length = (time.monotonic() - begun) / SAVES
    chance = random.Random(seed)
    inside = 0
    while inside < trials:
        folder = root / f"killed{inside}"
        save, delay = chance.randint(1, SAVES), chance.random() * length
        if not killed(folder, save, delay):  # the save was over already: one of another delay
            length *= 0.9
        else:
            length *= 1.02
            inside += 1
            left = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
            found = finish(folder)
            there = sorted(path.name for path in folder.iterdir())
            line = {"save": save, "delay": delay, "left": left, "digest": found, "whole": whole, "there": there}
            print(json.dumps(line), flush=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
