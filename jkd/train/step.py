"""One jitted step: teacher outputs and student gradients together.

The step is made of five pure functions, so that other ways of running it use the same mathematics:

    prepare          batch -> normalised, augmented inputs and label targets; the teacher's outputs on them
    shard_forward    student outputs of a micro-batch
    global_gradient  loss of the whole global batch, and its gradient with respect to the student's outputs
    shard_backward   that gradient carried back to the parameters of a micro-batch's forward pass
    update           optimiser, moving average, counters

Terms that relate samples to each other see the whole global batch, even when it is cut into micro-batches or over
devices. How a program is sent to the devices is told in `jkd.train.dispatch` (one program over a mesh, or `pmap`) and
`jkd.train.elastic` (single-device programs with the same bits everywhere). You can likely skip to `train_step`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from jkd import random
from jkd.data import Inputs
from jkd.data.inputs import shape_of
from jkd.data.pipeline import PER_STEP
from jkd.objective import Objective, Side
from jkd.tasks import Anchors, Task
from jkd.train.checksum import checksums, leaves_of
from jkd.train.given import Knowledge, Prepared, Run, neighbourhood
from jkd.train.shards import cut, join, tree_sum
from jkd.train.state import PyTree, TrainState

Batch = Mapping[str, Any]  # arrays by name: of NumPy before a program takes them, traced within
Apply = Callable[..., tuple[Array, dict[str, Array]]]
Outputs = tuple[Array, Array, dict[str, Array]]  # logits, feature, taps: what a gradient is taken with respect to


@dataclass(frozen=True)
class Program:
    """A student (or teacher) network with its objective and optimiser: all that a compiled step depends on."""

    task: Task
    module: nn.Module
    objective: Objective
    optimizer: optax.GradientTransformation
    settings: ConfigDict  # `.train` of the network's config
    steps: int
    classes: int
    inputs: Inputs
    teacher: Apply | None  # `apply(variables, input, train=False, keys=None)`
    teacher_inputs: Inputs | None = None  # where the teacher reads samples in another way, without augmentation
    teacher_task: Task | None = None  # the task as the teacher has it, where that is another
    parts: int = 1  # micro-batches that a step is cut into

    @property
    def reads(self) -> dict[str, Inputs]:
        """How a batch's inputs are read, by their keys."""
        return {"input": self.inputs} | ({"teacher_input": self.teacher_inputs} if self.teacher_inputs else {})

    @property
    def dropout(self) -> bool:
        return bool(getattr(self.module, "dropout", 0.0))

    @property
    def mixes(self) -> bool:
        """Whether augmentation mixes samples with others of the batch."""
        return bool(self.settings.augment.mixup or self.settings.augment.cutmix)

    @property
    def crosses(self) -> bool:
        """Whether augmentation takes anything from other samples of the batch: a mosaic does, and mixes no rows."""
        return self.mixes or bool(self.settings.augment.mosaic)

    def prepare(self, knowledge: Knowledge, batch: Batch, run: Run) -> Prepared:
        """Normalises, augments and labels a batch; looks its nodes up in the graph."""
        key = random.key("augment", run.seed, run.replicate, batch["step"])
        keys = random.sample_keys(key, batch["id"])
        raw = batch
        batch, partner, share = self.inputs.augmented(dict(raw), keys, key, self.settings.augment.to_dict())
        if self.teacher_inputs:
            batch["teacher_input"] = self.teacher_inputs.fed(raw["teacher_input"])

        def blend(rows: Array) -> Array:
            if not self.mixes:
                return rows
            part = share.reshape(-1, *(1,) * (rows.ndim - 1))
            return part * rows + (1.0 - part) * rows[partner]

        given = {name: blend(rows) for name, rows in self.task.given(batch, self.classes).items()}
        node, needs = self.task.nodes(batch).reshape(-1), self.objective.needs
        if "joined" in needs:
            assert knowledge.joined is not None
            given["joined"] = blend(knowledge.joined[node])
        if "mix" in needs:
            assert knowledge.mix is not None
            given["mix"] = knowledge.mix
        if knowledge.smoothing is not None:
            given["smoothing"] = knowledge.smoothing
        if "teacher_projection" in needs:
            given |= neighbourhood(knowledge, node)
        dropout = random.sample_keys(random.key("dropout", run.seed, run.replicate, batch["step"]), batch["id"])
        return Prepared(batch, dropout, given)

    def teacher_side(self, variables: PyTree, prepared: Prepared) -> Side | None:
        """The teacher's outputs on exactly the samples that the student sees; no gradient flows into them."""
        if self.teacher is None or not self.objective.needs_teacher:
            return None
        fed = prepared.batch["teacher_input" if self.teacher_inputs else "input"]
        outputs, taps = self.teacher(variables, fed)
        side = Side(
            self._anchors(self.teacher_task or self.task, prepared.batch, outputs, taps),
            {tap: taps[tap] for tap in self.objective.teacher_taps},
        )
        return jax.lax.stop_gradient(side)

    def _anchors(self, task: Task, batch: Batch, outputs: Any, taps: Mapping[str, Array]) -> Anchors:
        """The anchors; without feature and logits where they take work that nobody asks for."""
        if task.always or self.objective.needs_anchors:
            return task.anchors(batch, outputs, taps)
        node = task.nodes(batch)
        none = jnp.zeros((*node.shape, 0), jnp.float32)
        return Anchors(node, jnp.ones(node.shape, jnp.float32), none, none)

    def shard_forward(
        self, params: PyTree, batch_stats: PyTree, batch: Batch, dropout: Key[Array, " b"]
    ) -> tuple[Side, PyTree]:
        """The student's side of a micro-batch in training mode, and its updated BatchNorm statistics."""
        variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
        keys = dropout if self.dropout else None
        (outputs, taps), changed = self.module.apply(
            variables, batch["input"], train=True, keys=keys, mutable=["batch_stats"]
        )
        side = Side(
            self._anchors(self.task, batch, outputs, taps), {tap: taps[tap] for tap in self.objective.student_taps}
        )
        return side, changed.get("batch_stats", {})

    def global_gradient(
        self, objective: PyTree, student: Side, teacher: Side | None, given: Batch, progress: Array
    ) -> tuple[Array, dict[str, Array], PyTree, Outputs]:
        """Loss and terms of the global batch; gradients for the objective's parameters and the student's outputs."""

        def loss(objective: PyTree, logits: Array, feature: Array, taps: Mapping[str, Array]) -> tuple[Array, Any]:
            anchors = student.anchors._replace(logits=logits, feature=feature)
            return self.objective(objective, Side(anchors, taps), teacher, given, progress)

        of = (objective, student.anchors.logits, student.anchors.feature, dict(student.taps))
        (value, terms), (own, logits, feature, taps) = jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*of)
        return value, terms, own, (logits, feature, taps)

    def shard_backward(
        self, params: PyTree, batch_stats: PyTree, batch: Batch, dropout: Key[Array, " b"], cotangent: Any
    ) -> PyTree:
        """Runs a micro-batch forward again and carries the outputs' gradient back to the parameters."""

        def outputs(params: PyTree) -> Outputs:
            return _differentiable(self.shard_forward(params, batch_stats, batch, dropout)[0])

        return jax.vjp(outputs, params)[1](cotangent)[0]

    def update(self, state: TrainState, grads: PyTree, own: PyTree, batch_stats: PyTree) -> TrainState:
        """Applies one optimiser step to the student's and the objective's parameters."""
        params = {"student": state.params, "objective": state.objective}
        updates, opt_state = self.optimizer.update({"student": grads, "objective": own}, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        ema = state.ema
        if self.settings.ema:
            ema = optax.incremental_update(params["student"], ema, 1.0 - self.settings.ema)
        return TrainState(
            step=state.step + 1,
            params=params["student"],
            batch_stats=batch_stats,
            objective=params["objective"],
            opt_state=opt_state,
            ema=ema,
        )

    def train_step(
        self, state: TrainState, teacher: PyTree, knowledge: Knowledge, batch: Batch, run: Run
    ) -> tuple[TrainState, dict[str, Array]]:
        """One optimiser step on one global batch.

        Args:
          state: donated by the jitted form.
          teacher: the teacher's variables; never donated, never stored with the student.
          knowledge: the graph's arrays.
          batch: `input` `[B, ...]` as `inputs.read` gives it; `label` (-1 unknown), `id`, `node` int32 `[B]`; `step`
            `[]`; `teacher_input` where the teacher reads samples in another way; what the task asks for.
          run: seed and replicate.

        Returns:
          The next state, and `loss`, each term's value, and the gradient's global norm, all float32 `[]`.
        """
        prepared = self.prepare(knowledge, batch, run)
        return self.student_step(state, prepared, self.teacher_side(teacher, prepared))

    def student_step(
        self, state: TrainState, prepared: Prepared, teacher: Side | None
    ) -> tuple[TrainState, dict[str, Array]]:
        """The part of the step that follows the teacher's outputs; returns what `train_step` does."""
        state, metrics, _ = self.staged_step(state, prepared, teacher)
        return state, metrics

    def staged_step(
        self, state: TrainState, prepared: Prepared, teacher: Side | None
    ) -> tuple[TrainState, dict[str, Array], dict[str, PyTree]]:
        """As `student_step`, and what the step passed through, for `jkd.train.checksum`."""
        progress = self.progress(state)
        if self.parts == 1:
            backward, side, stats = self.differentiate(state.params, state.batch_stats, prepared)
            loss, terms, own, cotangent = self.global_gradient(state.objective, side, teacher, prepared.given, progress)
            grads = backward(cotangent)
        else:
            loss, terms, own, grads, stats, side = self._accumulated(state, prepared, teacher, progress)
        metrics = {"loss": loss, **terms, "gradient_norm": optax.global_norm(grads)}
        stages = self.stages_before(state) | self.stages_of(prepared, teacher, side) | stages_after(grads, own)
        return self.update(state, grads, own, stats), metrics, stages

    def progress(self, state: TrainState) -> Float[Array, ""]:
        """Share of the run that is over, in [0, 1)."""
        return state.step.astype(jnp.float32) / self.steps

    def differentiate(
        self, params: PyTree, batch_stats: PyTree, prepared: Prepared
    ) -> tuple[Callable[[Outputs], PyTree], Side, PyTree]:
        """The student's forward pass: what carries its outputs' gradient back, its side, its BatchNorm statistics."""

        def outputs(params: PyTree) -> tuple[Any, tuple[Side, PyTree]]:
            side, stats = self.shard_forward(params, batch_stats, prepared.batch, prepared.dropout)
            return _differentiable(side), (side, stats)

        _, backward, (side, stats) = jax.vjp(outputs, params, has_aux=True)
        return Backward(backward), side, stats

    def _accumulated(
        self, state: TrainState, prepared: Prepared, teacher: Side | None, progress: Array
    ) -> tuple[Array, dict[str, Array], PyTree, PyTree, PyTree, Side]:
        """The plain step with one micro-batch in memory at a time: forward all, the global gradient, then back."""
        # Every micro-batch takes each parts-th sample, so that a sharded batch stays evenly spread over devices.
        batches, dropouts = (
            cut(prepared.batch, self.parts, strided=True),
            cut(prepared.dropout, self.parts, strided=True),
        )
        passes = [
            self.shard_forward(state.params, state.batch_stats, *pair) for pair in zip(batches, dropouts, strict=True)
        ]
        side = join([side for side, _ in passes], strided=True)
        loss, terms, own, cotangent = self.global_gradient(state.objective, side, teacher, prepared.given, progress)
        grads = [
            self.shard_backward(state.params, state.batch_stats, *rest)
            for rest in zip(batches, dropouts, cut(cotangent, self.parts, strided=True), strict=True)
        ]
        stats = jax.tree.map(lambda leaf: leaf / self.parts, tree_sum([stats for _, stats in passes]))
        return loss, terms, own, tree_sum(grads), stats, side

    def stages_before(self, state: TrainState) -> dict[str, PyTree]:
        """What the update before this step left."""
        names = ("params", "batch_stats", "objective", "ema", "opt_state")
        return {"update": {name: getattr(state, name) for name in names}}

    def stages_of(self, prepared: Prepared, teacher: Side | None, student: Side) -> dict[str, PyTree]:
        """What a micro-batch passes through before its gradients, as far as the objective reads it."""

        def arrays(side: Side) -> dict[str, PyTree]:
            feature = {"embedding": side.anchors.feature} if self.objective.projects else {}
            return {"logits": side.anchors.logits, "taps": dict(side.taps)} | feature

        batch, given = prepared.batch, prepared.given
        looked_up = ("joined", "mix", "smoothing", "neighbours", "neighbour_weights")
        return {
            "batch": {key: value for key, value in batch.items() if key not in PER_STEP},
            "teacher": arrays(teacher) if teacher else {},
            "graph": {key: given[key] for key in looked_up if key in given},
            "student": arrays(student),
        }

    def train_steps(
        self, state: TrainState, teacher: PyTree, knowledge: Knowledge, chunk: Batch, run: Run
    ) -> tuple[TrainState, dict[str, Array]]:
        """Up to S steps in one dispatch: `chunk` is a batch with a leading axis S and `count` real steps.

        The number of steps is traced, so a short last chunk or a resumed one runs the same program. So is `record`:
        whether the steps' checksums are taken, uint32 `[S, leaves]` (zeros where not; those of the optimiser's state in
        the first step only).
        Returns the state and metrics `[S]`.
        """
        batches = {key: value for key, value in chunk.items() if key not in ("count", "record")}
        length = batches["step"].shape[0]

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
            prepared = self.prepare(knowledge, batch, run)
            state, metrics, stages = self.staged_step(state, prepared, self.teacher_side(teacher, prepared))
            aligned = batch["step"] % length == 0  # not the first of this chunk: a resumed run's chunk may start later
            return state, metrics | {"checksums": checksums(stages, chunk["record"], aligned)}

        first = jax.tree.map(lambda leaf: leaf[0], batches)
        if length == 1:  # no loop: convolutions inside one are ten times slower on CPU
            state, metrics = step(state, first)
            return state, jax.tree.map(lambda value: value[None], metrics)

        def body(index: Array, carry: tuple[TrainState, dict[str, Array]]) -> tuple[TrainState, dict[str, Array]]:
            state, log = carry
            state, metrics = step(state, jax.tree.map(lambda leaf: leaf[index], batches))
            return state, {key: log[key].at[index].set(metrics[key]) for key in log}

        shapes = jax.eval_shape(step, state, first)[1]
        log = {key: jnp.zeros((length, *shape.shape), shape.dtype) for key, shape in shapes.items()}
        return jax.lax.fori_loop(0, chunk["count"], body, (state, log))

    def checksum_leaves(
        self, state: TrainState, teacher: PyTree, knowledge: Knowledge, chunk: Batch, run: Run, axis: str | None = None
    ) -> tuple[tuple[str, str], ...]:
        """`stage/path` and `dtype[shape]` of all that a step takes checksums of, in order; from shapes alone.

        A module that averages over an `axis` of devices finds one of that name, of one device.
        """

        def step(state: TrainState, teacher: PyTree, knowledge: Knowledge, batch: Batch, run: Run) -> PyTree:
            prepared = self.prepare(knowledge, batch, run)
            return self.staged_step(state, prepared, self.teacher_side(teacher, prepared))[2]

        batch = {
            key: jax.ShapeDtypeStruct(np.shape(value)[1:], value.dtype)
            for key, value in chunk.items()
            if np.ndim(value)
        }
        bound = jax.vmap(step, in_axes=None, out_axes=None, axis_name=axis, axis_size=1) if axis else step
        return leaves_of(jax.eval_shape(bound, state, teacher, knowledge, batch, run))

    def project_nodes(self, objective: PyTree, knowledge: Knowledge, nodes: Array) -> Array:
        """The graph's nodes `[B]` in the projected space, `[B, P]`, from their stored features and edges."""
        assert knowledge.features is not None
        return self.objective.project_teacher(objective, knowledge.features[nodes], neighbourhood(knowledge, nodes))

    def init_variables(self, run: Run) -> PyTree:
        """The network's variables at step 0, from the `init` stream: the same for students with equal networks."""
        key = random.subkey(random.key("init", run.seed, run.replicate), 0)
        return self.module.init(key, jnp.asarray(self.inputs.example(1)), train=False)

    def init(self, run: Run, teacher: PyTree, variables: PyTree | None = None) -> TrainState:
        """The state at step 0; `variables` are what `init_variables` gives, where that has been called already."""
        variables = self.init_variables(run) if variables is None else variables
        params: PyTree = variables["params"]

        def sides(variables: PyTree, fed: Array, theirs: Array) -> tuple[Side, Side | None]:
            count = fed.shape[0]
            batch = {"node": jnp.zeros(count, jnp.int32), "input": fed}
            batch |= {name: jnp.asarray(array) for name, array in self.task.example(count).items()}
            made: Any = self.module.apply(variables, fed, train=False)
            student = Side(self.task.anchors(batch, *made), dict(made[1]))
            if self.teacher is None:
                return student, None
            outputs, taps = self.teacher(teacher, theirs)
            return student, Side((self.teacher_task or self.task).anchors(batch, outputs, taps), dict(taps))

        fed, theirs = (shape_of(inputs.example(2)) for inputs in (self.inputs, self.teacher_inputs or self.inputs))
        shapes = jax.eval_shape(sides, variables, fed, theirs)
        objective = self.objective.init(random.subkey(random.key("init", run.seed, run.replicate), 1), *shapes)
        return TrainState(
            step=jnp.zeros((), jnp.uint32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            objective=objective,
            opt_state=self.optimizer.init({"student": params, "objective": objective}),
            ema=params if self.settings.ema else {},
        )


def stages_after(grads: PyTree, own: PyTree) -> dict[str, PyTree]:
    """The gradients of the global batch, of the student's and the objective's parameters."""
    return {"gradients": {"student": grads, "objective": own}}


@jax.tree_util.register_pytree_node_class
class Backward:
    """A pulled-back forward pass; a pytree of its residuals, so that one program can return it to another."""

    def __init__(self, pull: Callable[[Outputs], tuple[PyTree]]) -> None:
        self.pull = pull

    def __call__(self, cotangent: Outputs) -> PyTree:
        return self.pull(cotangent)[0]

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.pull,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any]) -> "Backward":
        return cls(*children)


def _differentiable(side: Side) -> Outputs:
    """The parts of a side that carry a gradient: its node ids and mask do not."""
    return side.anchors.logits, side.anchors.feature, dict(side.taps)
