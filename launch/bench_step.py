"""The speed of a training step as ratios, on synthetic images: they hold on a busy machine, absolute times do not.

    python launch/bench_step.py [--config=FILE[:VARIANT] ...] [--width=N] [--batch=64] [--pairs=20]

For each config (narrow VGG13 -> VGG8 on 32x32 images, and the digits MLP, unless told otherwise) it prints

    fused / apart    the one program of a step, over the teacher's forward pass and the student's step as two programs;
                     the second is given the first's outputs and augmented images, so nothing is done twice
    graph / kd       the step with the graph's terms, over the step of plain distillation

    checksums        the step as training records it, over one without
    digests          shares of the time of `train.digest_every` steps: of the copy of the state, which the steps wait
                     for, and of its SHA-256, which a thread takes
    elastic / plain  the elastic step of --shards virtual shards, in a process of its own with the pool of threads that
                     `jkd distill` gives it, over the plain one, both with checksums (not where one call is many steps:
                     there both are one program), and the share of it that the loss of the global batch takes

each the median, with quartiles, of interleaved pairs of calls that take turns in who goes first; one call is
`train.steps_per_call` steps. Beside the elapsed time stands the processor time, which a busy machine disturbs less.
The exit code is 0 whatever they are.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jkd import build, objective, random, sharding, xla
from jkd import config as configs
from jkd.build import Compiled, Session
from jkd.data import DataSet
from jkd.data.sources import ArraySource
from jkd.tasks import make_task
from jkd.train.elastic import ElasticStep
from jkd.train.given import Knowledge
from jkd.train.record import leaves_of, parts_of
from jkd.train.step import Program

CONFIGS = ["configs/cifar10.py:small", "configs/digits.py"]
CLASSES, NODES = 10, 1024
Step = Callable[..., tuple[Any, dict[str, jax.Array]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", help="may be repeated; its kd and knowledge_graph are timed")
    parser.add_argument("--width", type=int, default=0, help="of teacher and student; 0 = the config's")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--shards", type=int, default=8, help="of the elastic step")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)  # a student: see `Served`
    options = parser.parse_args()
    if options.serve:
        return serve(options.config[0], options.serve, options.width, options.batch, options.shards)
    xla.set_flags()
    for spec in options.config or CONFIGS:
        bench(spec, options.width, options.batch, options.pairs, options.shards)


def bench(spec: str, width: int, batch: int, pairs: int, shards: int) -> None:
    """Prints the figures of one config."""
    session = synthetic(changed(configs.load(spec), width, batch))
    teacher, students = session.config.teacher, session.config.students
    compiled = {name: program_of(session, name) for name in ("kd", "knowledge_graph") if name in students}
    sizes = ", ".join(f"{each.model} of width {each.width}" for each in (teacher, students[next(iter(compiled))]))
    image = "x".join(map(str, session.dataset.shape))
    print(f"{spec}: {sizes}; {image} images, batch {batch}; {' '.join(xla.flags()) or 'no XLA flags'}", flush=True)
    fused = {name: Runner(session, each, bound(each.step)) for name, each in compiled.items()}
    for name, each in compiled.items():
        times = interleave(fused[name], Runner(session, each, apart(each.program)), pairs)
        show(f"{name}: fused / apart", times)
        images = batch * each.program.settings.steps_per_call
        print(f"    {images / np.median(times[0], axis=0)[0]:,.0f} images/s fused")
        show(f"{name}: checksums", interleave(Runner(session, each, bound(each.step), True), fused[name], pairs))
        copy, hashed = digest_seconds(fused[name].state)
        calls = each.program.settings.digest_every / each.program.settings.steps_per_call
        share = 1 / (calls * np.median(times[0], axis=0)[0])
        print(f"    digests: {copy * share:.5f} for the copies, {hashed * share:.5f} in a thread")
        if each.program.settings.steps_per_call == 1:
            recorded = Runner(session, each, bound(each.step), True)
            with Served(spec, name, width, batch, shards) as elastic:
                show(f"{name}: elastic / plain", interleave(elastic, recorded, pairs))
                print(f"    of which the global loss: {elastic.ask('share')[0]:.3f}")
    if len(fused) == 2:
        show("graph / kd", interleave(fused["knowledge_graph"], fused["kd"], pairs))


def changed(config: ConfigDict, width: int, batch: int) -> ConfigDict:
    """The config resolved, without data files, in the asked width and batch."""
    config.data.path = config.data.path or "nowhere"
    for network in (config.teacher, config.student):
        network.train.batch = batch
        network.width = width or network.width
    return configs.resolve(config)


def synthetic(config: ConfigDict) -> Session:
    """A session over random images of the config's shape."""
    side = config.data.image_size or (8 if config.data.source == "digits" else 32)
    shape = (NODES, side, side, len(config.data.mean))
    pixels = (256 * random.uniform("pool", 0, size=int(np.prod(shape)))).astype(np.uint8).reshape(shape)
    labels = np.arange(NODES, dtype=np.int32) % CLASSES
    ids, classes = [str(node) for node in range(NODES)], [str(label) for label in range(CLASSES)]
    source = ArraySource("synthetic", classes, ids, labels, pixels)
    data = DataSet("synthetic", source, source)
    return Session(config, data, sharding.make_mesh(config.devices), make_task(config.task))


def program_of(session: Session, name: str) -> Compiled:
    """The program of a student of the config."""
    network = session.config.students[name]
    goal = objective.make_objective(network, len(session.config.graph.views))
    return session.program(network, goal, session.apply_of(session.config.teacher), NODES, f"students.{name}")


def bound(step: Any) -> Step:
    """A step as training runs it: bound once, then called."""
    advance: list[Any] = []

    def call(state: Any, variables: Any, knowledge: Knowledge, chunk: Any, run: build.Run) -> Any:
        if not advance:
            advance.append(step.bind(variables, knowledge, run))
        return advance[0](state, chunk)

    return call


def digest_seconds(state: Any, times: int = 5) -> tuple[float, float]:
    """Median seconds of the copy of a state and of its SHA-256, as `jkd.train.record` takes them."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), parts_of(state))
        copied = time.perf_counter()
        leaves_of(copy)
        took.append((copied - start, time.perf_counter() - copied))
    copy_time, hash_time = np.median(took, axis=0)
    return float(copy_time), float(hash_time)


def share_of_global(session: Session, compiled: Compiled, shards: int, calls: int = 10) -> float:
    """Median share of an elastic step's time that its program for the loss of the global batch takes."""
    step, took = ElasticStep(compiled.program, shards, jax.devices()), []
    loss = step._loss

    def timed(*given: Any) -> Any:
        jax.block_until_ready(given)
        start = time.perf_counter()
        out = jax.block_until_ready(loss(*given))
        took.append(time.perf_counter() - start)
        return out

    step._loss = timed
    runner = Runner(session, compiled, bound(step))
    whole = [runner.seconds()[0] for _ in range(calls)]
    return float(np.median(np.divide(took[-calls:], whole)))


def apart(program: Program) -> Step:
    """The step as two programs, called one after the other; takes and returns what the fused one does."""

    def over_steps(function: Callable[..., Any], carry: Any, rows: Any) -> Any:
        if len(jax.tree.leaves(rows)[0]) > 1:
            return jax.lax.scan(function, carry, rows)
        carry, out = function(carry, jax.tree.map(lambda leaf: leaf[0], rows))
        return carry, jax.tree.map(lambda leaf: leaf[None], out)

    @jax.jit
    def teach(variables: Any, knowledge: Knowledge, batches: Any, run: build.Run) -> Any:
        def of_step(_: None, batch: Any) -> Any:
            prepared = program.prepare(knowledge, batch, run)
            return None, (prepared, program.teacher_side(variables, prepared))

        return over_steps(of_step, None, batches)[1]

    def learn(state: Any, rows: Any) -> Any:
        return over_steps(lambda state, row: program.student_step(state, *row), state, rows)

    learn = jax.jit(learn, donate_argnums=0)

    def step(state: Any, variables: Any, knowledge: Knowledge, chunk: Any, run: build.Run) -> Any:
        batches = {key: value for key, value in chunk.items() if np.ndim(value)}
        return learn(state, teach(variables, knowledge, batches, run))

    return step


class Runner:
    """Calls a step again and again on its own state, each time with the next samples."""

    def __init__(self, session: Session, compiled: Compiled, step: Step, record: bool = False) -> None:
        program = compiled.program
        self.step, self.settings, self.source = step, program.settings, session.dataset.train
        self.calls, self.run, self.record = 0, build.run_of(0, 0), record
        module = session.module(session.config.teacher)
        self.teacher = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, *self.source.shape)))
        self.state = compiled.init(self.run, self.teacher)
        apply = session.apply_of(session.config.teacher)
        feature = jax.eval_shape(apply, self.teacher, jnp.zeros((1, *self.source.shape)))[1]["embedding"]
        self.knowledge = knowledge(program, session.config.graph, feature.shape[-1])
        for _ in range(2):  # compile, and warm up
            self.seconds()

    def seconds(self) -> tuple[float, float]:
        """Elapsed and processor time of one call, from the batch in host memory to the new state."""
        steps, batch = self.settings.steps_per_call, self.settings.batch
        at = (np.arange(steps * batch, dtype=np.int32) + self.calls * steps * batch) % NODES
        at = at.reshape(steps, batch)
        chunk = {"input": self.source.images(at), "label": self.source.labels[at], "id": at, "node": at}
        chunk["step"] = self.calls * steps + np.arange(steps, dtype=np.int32)
        chunk |= {"count": np.int32(steps), "record": np.asarray(self.record)}
        self.calls += 1
        start, processor = time.perf_counter(), time.process_time()
        self.state, metrics = self.step(self.state, self.teacher, self.knowledge, chunk, self.run)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - start, time.process_time() - processor


class Served:
    """A `Runner` of the elastic step in a process of its own: the pool's size is decided when jax starts."""

    def __init__(self, spec: str, name: str, width: int, batch: int, shards: int) -> None:
        numbers = {"width": width, "batch": batch, "shards": shards}
        flags = [f"--config={spec}", f"--serve={name}", *(f"--{key}={value}" for key, value in numbers.items())]
        command = [sys.executable, __file__, *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str) -> list[float]:
        """Its answer to a word, see `serve`."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return [float(number) for number in self.process.stdout.readline().split()]

    def seconds(self) -> tuple[float, float]:
        """As `Runner.seconds`."""
        elapsed, processor = self.ask("seconds")
        return elapsed, processor

    def __enter__(self) -> "Served":
        self.seconds()  # waits until it has compiled
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def serve(spec: str, name: str, width: int, batch: int, shards: int) -> None:
    """Answers `seconds`, of a call of a student's elastic step, and `share`, of the global loss in it."""
    xla.set_flags("elastic", shards=shards)
    session = synthetic(changed(configs.load(spec), width, batch))
    compiled = program_of(session, name)
    runner = Runner(session, compiled, bound(ElasticStep(compiled.program, shards, jax.devices())), True)
    for line in sys.stdin:
        if line.strip() == "seconds":
            print(*runner.seconds(), flush=True)
        else:
            print(share_of_global(session, compiled, shards), flush=True)


def knowledge(program: Program, graph: ConfigDict, width: int) -> Knowledge:
    """A random graph's arrays, those that the program reads."""
    needs, shape = program.objective.needs, (len(graph.views), NODES, graph.k)
    joined = np.float32(random.uniform("pool", 1, size=NODES * CLASSES).reshape(NODES, CLASSES))
    features = np.float32(random.uniform("pool", 2, size=NODES * width).reshape(NODES, width))
    edges = (NODES * random.uniform("edges", 0, size=int(np.prod(shape)))).astype(np.int32).reshape(shape)
    weights = np.float32(random.uniform("edges", 1, size=edges.size)).reshape(shape)
    given = {"joined": joined / joined.sum(-1, keepdims=True), "mix": np.float32(0.8)} if "joined" in needs else {}
    if program.objective.projects:
        given |= {"features": features, "neighbours": edges, "weights": weights}
    return Knowledge(**jax.tree.map(jnp.asarray, given))


Times = list[tuple[float, float]]


def interleave(one: Runner | Served, two: Runner | Served, pairs: int) -> tuple[Times, Times]:
    """Seconds of each call of both, in pairs; they take turns in going first."""
    times: tuple[Times, Times] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            times[which].append((one, two)[which].seconds())
    return times


def show(label: str, times: tuple[Times, Times]) -> None:
    """Prints the median and quartiles of the pairs' ratios."""
    low, median, high = np.quantile(np.divide(*times), (0.25, 0.5, 0.75), axis=0)
    print(
        f"  {label}: {median[0]:.3f} (quartiles {low[0]:.3f} to {high[0]:.3f}, {len(times[0])} pairs; "
        f"processor time {median[1]:.3f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
