"""A distillation step of BERT on texts against the same networks in PyTorch eager, as a ratio of times on this CPU.

    python launch/bench_torch.py [--pairs=20] [--batch=32] [--length=32]

Six blocks of width 384 teach three of the same width by KD at T = 2, without dropout, with AdamW. Both do in one call
all that a step does: the teacher's forward pass, the student's forward and backward pass, the update. Calls take turns;
printed is the median, with quartiles, of each pair's ratio, and beside it the rate at which the loader gives batches
over the rate of the step. PyTorch is no requirement of jkd: install it first (`pip install torch`).
"""

import argparse
import sys
import time
from typing import Any

import jax
import numpy as np

from jkd import build, objective, xla
from jkd import config as configs
from jkd.data import batches, open_dataset
from jkd.train.given import Knowledge

WIDTH, DEPTH, HEADS, VOCABULARY, CLASSES = 384, (6, 3), 12, 8000, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=32)
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("this compares with PyTorch, which is not installed: pip install torch")
    xla.set_flags()
    ids = np.arange(options.batch * options.length, dtype=np.int32).reshape(options.batch, options.length)
    ids = (ids * 7919) % (VOCABULARY - 5) + 5
    ours, loader = jkd_step(options.batch, options.length, ids)
    theirs = torch_step(torch, ids)
    for step in (ours, theirs, ours, theirs):
        step()
    ratios, seconds = [], []
    for pair in range(options.pairs):
        order = (ours, theirs) if pair % 2 else (theirs, ours)
        took = {step: timed(step) for step in order}
        ratios.append(took[ours] / took[theirs])
        seconds.append(took[ours])
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    print(
        f"jkd / PyTorch {torch.__version__} eager on {torch.get_num_threads()} threads, time of a step: {middle:.2f} "
        f"[{low:.2f}, {high:.2f}]"
    )
    print(f"loader / step: {np.median(seconds) / loader:.0f} times as many batches a second")


def timed(step: Any) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def jkd_step(batch: int, length: int, ids: np.ndarray) -> tuple[Any, float]:
    """A call that runs one step and waits for it, and the seconds in which the loader makes a batch."""
    config = configs.default()
    config.data.update(source="trec", max_length=length, buckets=(), vocabulary=VOCABULARY)
    config.graph.update(views=("teacher", "lexical"), diagnosis="none")
    for network, depth in zip((config.teacher, config.student), DEPTH, strict=True):
        network.update(model="bert", width=WIDTH, depth=depth, attention_heads=HEADS, pooling="mean")
        network.train.update(batch=batch, steps=1000)
        network.train.optimizer.name = "adamw"
    config.students = {"kd": {"objective": {"kd": {"weight": 1.0, "temperature": 2.0}}}}
    config = configs.resolve(config)
    session, student = build.open_session(config), config.students.kd
    goal = objective.make_objective(student, 2)
    compiled = session.program(student, goal, session.apply_of(config.teacher), 1000, "students.kd")
    run = build.run_of(0, 0)
    module = session.module(config.teacher)
    teacher = jax.jit(module.init)(jax.random.key(1), ids)
    state = compiled.step.place(compiled.init(run, teacher))
    advance = compiled.step.bind(teacher, Knowledge(), run)
    rows = {"label": np.full(batch, -1, np.int32), "id": np.arange(batch, dtype=np.int32)}
    chunk = {name: array[None] for name, array in (rows | {"node": rows["id"], "input": ids}).items()}
    chunk |= {"step": np.zeros(1, np.int32), "count": np.int32(1), "record": np.asarray(False)}
    held = [state]

    def step() -> None:
        held[0], metrics = advance(held[0], chunk)
        jax.block_until_ready((held[0], metrics))

    train = open_dataset(config.data).train
    inputs = {"input": session.inputs_of(student)}
    index = np.arange(len(train))
    stream = batches(train, index, train.labels, inputs=inputs, batch=batch, steps=201, seed=0, replicate=0)
    next(stream)  # the first makes all tokens
    start = time.perf_counter()
    for _ in range(200):
        next(stream)
    return step, (time.perf_counter() - start) / 200


def torch_step(torch: Any, ids: np.ndarray) -> Any:
    """The same in PyTorch."""
    nn = torch.nn

    class Bert(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.word, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(ids.shape[1], WIDTH)
            self.norm = nn.LayerNorm(WIDTH)
            block = nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True
            )
            self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
            self.head = nn.Linear(WIDTH, CLASSES)

        def forward(self, tokens: Any) -> Any:
            padding = tokens == 0
            x = self.norm(self.word(tokens) + self.place.weight[: tokens.shape[1]])
            x = self.blocks(x, src_key_padding_mask=padding)
            real = (~padding).unsqueeze(-1).to(x.dtype)
            return self.head((x * real).sum(1) / real.sum(1))

    teacher, student = Bert(DEPTH[0]).eval(), Bert(DEPTH[1]).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    tokens = torch.from_numpy(ids.astype(np.int64))

    def step() -> None:
        with torch.no_grad():
            target = nn.functional.log_softmax(teacher(tokens) / 2.0, -1)
        found = nn.functional.log_softmax(student(tokens) / 2.0, -1)
        loss = 4.0 * nn.functional.kl_div(found, target, log_target=True, reduction="batchmean")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
