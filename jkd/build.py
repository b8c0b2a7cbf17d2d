"""From config to objects: the one place that knows names. Compiled programs are kept, so each compiles once a run.

Where they come to be too many for the system they are let go, and those that are wanted again compile again.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jkd import config as configs
from jkd import digest, networks, objective, processes, random, sharding, xla
from jkd.data import DataSet, Images, Inputs, open_dataset
from jkd.data.object_inputs import Objects
from jkd.data.text_inputs import Texts
from jkd.errors import UserError
from jkd.models import DETECTORS, TEXT_MODELS, build_model
from jkd.pretrained import bert, hub, torch_images
from jkd.pretrained import callable as own_function
from jkd.tasks import Task, make_task
from jkd.train.dispatch import MeshStep, PmapStep, Step
from jkd.train.elastic import elastic_step
from jkd.train.given import Run
from jkd.train.optimizer import make_optimizer
from jkd.train.predict import Predictor
from jkd.train.state import PyTree
from jkd.train.step import Program

Apply = Callable[..., tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Teacher:
    """A frozen network: `apply(variables, images) -> (logits, taps)`, and the digest of both."""

    apply: Apply
    variables: PyTree
    digest: str


@dataclass(frozen=True)
class Compiled:
    """A program and its jitted functions, which every replicate and seed shares.

    Attributes:
      program: what they are made from.
      step: the program, ready to run on the devices (see `jkd.train.dispatch`).
      init: `(run, teacher variables, start or None) -> TrainState`; see `jkd.networks.start_of`.
      project_student: `(objective parameters, embeddings [B, D]) -> [B, P]`.
      project_nodes: `(objective parameters, knowledge, nodes [B]) -> [B, P]`.
    """

    program: Program
    step: Step
    init: Callable[..., Any]
    project_student: Callable[..., Any]
    project_nodes: Callable[..., Any]


@dataclass
class Session:
    """What one run of the command holds in memory: config, data, devices, compiled programs."""

    config: ConfigDict
    dataset: DataSet
    mesh: Mesh
    task: Task
    _programs: dict[str, Compiled] = field(default_factory=dict)
    _predictors: dict[tuple[int, int, str], tuple[Apply, Predictor]] = field(default_factory=dict)
    _inputs: dict[str, Inputs] = field(default_factory=dict)
    _applies: dict[str, Apply] = field(default_factory=dict)
    _inits: dict[str, Callable[[Run], PyTree]] = field(default_factory=dict)
    _tasks: dict[str, Task] = field(default_factory=dict)

    @cached_property
    def loaded_teacher(self) -> Teacher | None:
        """The teacher that comes from a file or from the user's function; None when it is to be trained here."""
        network = self.config.teacher
        classes, shape = len(self.dataset.classes), self.dataset.shape
        if network.fn:
            own = own_function.load(network.fn, network.variables, classes=classes, shape=shape)
            apply = own.apply if network.normalize else _raw(own.apply, self)
            return Teacher(apply, own.variables, digest.of_json([own.digest, network.normalize]))
        if network.weights:
            module = self.module(network)
            if network.model == "bert":
                loaded = bert.load(hub.resolve(network.weights), module, random.key("init", network.seed))
                if any("classifier" in leaf for leaf in loaded.fresh):
                    raise UserError(
                        f"teacher.weights: {network.weights} has no classifier for {classes} classes. Train one: set "
                        "teacher.init to it instead."
                    )
                labels = bert.labels_of(hub.resolve(network.weights))
                where = f"teacher.weights: {network.weights}"
                variables = networks.in_order(loaded.variables, labels, self.dataset.classes, where)
            elif network.model == "yolo":
                variables = networks.yolo_variables(network, classes)
            else:
                variables = torch_images.load(network.weights, module, shape)
            made_of = {"network": configs.as_dict(network), "variables": digest.of_tree(variables)}
            return Teacher(self.apply_of(network), variables, digest.of_json(made_of))
        return None

    @property
    def parts(self) -> int:
        """Into how many equal parts a batch is cut, for devices or as virtual shards."""
        return self.config.shards if self.config.reduction == "elastic" else int(self.mesh.devices.size)

    def step(self, program: Program) -> Step:
        """A program as the config wants it run."""
        if self.config.reduction == "elastic":
            return elastic_step(program, self.config.shards, sharding.local_devices(self.config.devices))
        if self.config.parallelism == "pmap":
            return PmapStep(program, list(self.mesh.devices.flat))
        return MeshStep(program, self.mesh)

    def module(self, network: ConfigDict) -> Any:
        """The module of a network; of the sizes of its Hugging Face folder, where it comes from one."""
        axis = sharding.AXIS if self.config.parallelism == "pmap" else None
        classes = len(self.dataset.classes)
        if folder := networks.folder_of(network):
            return networks.of_folder(folder, network, classes)
        if network.model == "yolo":
            return networks.yolo_of(network, classes, axis)
        inputs = self.inputs_of(network)
        words = inputs.tokenizer if isinstance(inputs, Texts) else None
        longest = self.config.data.max_length
        made = build_model(network, classes, axis, words.size if words else 0, words.pad if words else 0, longest)
        if network.model == "bert" and network.init == networks.TEACHER:
            whole = self.module(self.config.teacher)  # what it is cut out of says how small a variance may be
            made = made.clone(layer_norm_eps=getattr(whole, "layer_norm_eps", made.layer_norm_eps))
        return made

    def kept_words(self, network: ConfigDict) -> list[int] | None:
        """The teacher's id of each word of a student that is cut out of it; None for others."""
        own, theirs = (self.inputs_of(each) for each in (network, self.config.teacher))
        if network.init != networks.TEACHER or not (isinstance(own, Texts) and isinstance(theirs, Texts)):
            return None
        return networks.kept_words(own.tokenizer, theirs.tokenizer)

    def apply_of(self, network: ConfigDict) -> Apply:
        """The evaluation-mode forward pass of a network of ours; the same object for equal networks."""
        module = self.module(network)
        key = repr(module)
        if key not in self._applies:

            def apply(variables: PyTree, fed: jax.Array) -> tuple[Any, dict[str, Any]]:
                return module.apply(variables, fed, train=False)

            self._applies[key] = apply
        return self._applies[key]

    def inputs_of(self, network: ConfigDict) -> Inputs:
        """How samples become what a network is fed; the same object for networks that read them alike."""
        data = self.config.data
        if self.dataset.kind == "objects":
            return self._inputs.setdefault("objects", Objects(self.dataset.shape))
        if self.dataset.kind == "images":
            return self._inputs.setdefault("images", Images(self.dataset.shape, data.mean, data.std))
        place = networks.tokenizer_of(network, self.config.teacher)
        replaces = bool(network.train.augment.replace)  # a table of near tokens is only made for those who ask
        key = f"{place} {replaces}"
        if key not in self._inputs:
            self._inputs[key] = networks.texts(
                place, data, self.dataset.train, self.config.teacher if replaces else None
            )
        return self._inputs[key]

    def reads_as_teacher(self, network: ConfigDict) -> bool:
        """Whether a network is fed what the teacher is: then the teacher sees what augmentation made of a sample."""
        own, theirs = self.inputs_of(network), self.inputs_of(self.config.teacher)
        return own is theirs or own.made_of == theirs.made_of

    def task_of(self, network: ConfigDict) -> Task:
        """The task as a network has it; the same object for equal networks."""
        module = self.module(network)
        return self._tasks.setdefault(repr(module), make_task(self.task.name, module, self.dataset.shape))

    def predictor(self, apply: Apply, network: ConfigDict, of_nodes: bool = False) -> Predictor:
        """The compiled predictor of a network's `apply`, made once: its answers, or what it says of given nodes."""
        inputs, task = self.inputs_of(network), self.task_of(network)
        key = (id(apply), id(inputs), "" if task.describe is task.predict else str(of_nodes))
        if key not in self._predictors:
            read = task.describe if of_nodes else task.predict
            self._predictors[key] = (apply, Predictor(apply, inputs, self.mesh, read))
        return self._predictors[key][1]

    def objective_of(self, network: ConfigDict, edge_types: int, where: str) -> objective.Objective:
        """The objective of a student, on a graph with so many types of edges; layers are matched by depth."""
        own, theirs = (getattr(self.module(each), "depth", 0) for each in (network, self.config.teacher))
        described = (self.task_of(network).described, self.task_of(self.config.teacher).described)
        return objective.make_objective(network, edge_types, (own, theirs), where, described)

    def program(
        self, network: ConfigDict, goal: objective.Objective, teacher: Apply | None, samples: int, where: str
    ) -> Compiled:
        """A program, compiled once. Networks that differ only in graph, sampling or seed share one."""
        steps = steps_of(network, samples)
        seen = configs.as_dict(network)
        for irrelevant in ("graph", "sampling", "seed", "weights", "fn", "variables"):
            seen.pop(irrelevant, None)
        key = digest.of_json([seen, steps, id(teacher) if teacher else 0, where == "teacher"])
        if key not in self._programs:
            if xla.crowded():  # a table of many methods: what was compiled for the rows before goes
                self._programs.clear()
                jax.clear_caches()
                gc.collect()  # steps refer to themselves
            settings = network.train
            sharding.check_batch(self.parts, settings.batch, settings.accumulate, where)
            alike = self.reads_as_teacher(network)
            program = Program(
                task=self.task_of(network),
                module=self.module(network),
                objective=goal,
                optimizer=make_optimizer(settings.optimizer, steps),
                settings=settings,
                steps=steps,
                classes=len(self.dataset.classes),
                inputs=self.inputs_of(network),
                teacher=teacher,
                teacher_inputs=None if alike or not teacher else self.inputs_of(self.config.teacher),
                teacher_task=self.task_of(self.config.teacher) if teacher else None,
                parts=settings.accumulate,
            )
            self._programs[key] = Compiled(
                program,
                step=self.step(program),
                init=self._init(program),
                project_student=jax.jit(program.objective.project_student),
                project_nodes=jax.jit(program.project_nodes),
            )
        return self._programs[key]

    def _init(self, program: Program) -> Callable[..., Any]:
        """`(run, teacher variables) -> state`. Random draws compile slowly, so equal networks share theirs."""
        draw = self._inits.setdefault(repr(program.module), jax.jit(program.init_variables))
        rest = jax.jit(program.init)

        def init(run: Run, teacher: PyTree, start: networks.Start | None = None) -> Any:
            return rest(run, teacher, start(lambda: draw(run), run) if start else draw(run))

        return init


def open_session(config: ConfigDict) -> Session:
    """Opens the data set and the devices of a resolved config."""
    xla.set_flags(config.reduction, config.deterministic, config.shards)
    processes.look()
    dataset, task = open_dataset(config.data), make_task(config.task)
    if dataset.kind not in task.kinds:
        raise UserError(f"task: '{task.name}' is about {' or '.join(task.kinds)}, but the data are {dataset.kind}.")
    for where, network in (("teacher", config.teacher), *((f"students.{n}", s) for n, s in config.students.items())):
        _check_kind(where, network, dataset)
    _check_unread(config, dataset.kind)
    if dataset.kind == "images" and len(config.data.mean) not in (1, dataset.shape[-1]):
        raise UserError(f"data.mean: expected {dataset.shape[-1]} numbers, one a channel, got {config.data.mean}.")
    return Session(config, dataset, _mesh(config), task)


# Augmentations by what they are of, with the value that switches each off.
AUGMENTATIONS: dict[str, dict[str, int]] = {
    "images": dict.fromkeys(("shift", "pad_crop", "flip", "cutout", "mixup", "cutmix"), 0),
    "texts": dict.fromkeys(("mask", "drop", "replace"), 0),
    "objects": dict.fromkeys(("flip", "jitter", "hue", "mosaic"), 0) | dict.fromkeys(("saturation", "exposure"), 1),
}

# Keys of `data` that are not read of every kind of data, by those that they are read of.
IMAGE_FILES = ("image_size", "max_pixels", "broken", "broken_limit")
DATA_KEYS: dict[str, tuple[str, ...]] = {
    "images": (*IMAGE_FILES, "mean", "std"),
    "texts": (
        *("classes", "text", "label", "header", "delimiter", "quotes", "encoding", "errors", "overlap", "test_share"),
        *("max_chars", "max_length", "buckets", "vocabulary", "val_split"),
    ),
    "objects": (
        *(*IMAGE_FILES, "classes", "fit", "interpolation", "max_boxes", "train_difficult", "origin"),
        *("names", "shapes"),
    ),
}


def _check_unread(config: ConfigDict, kind: str) -> None:
    """Refuses a key of `data` that was set and that nobody reads of such data."""
    unread = {key for keys in DATA_KEYS.values() for key in keys} - set(DATA_KEYS[kind])
    for path, value in configs.difference(config).items():
        group, key = (*path.split("."), "")[:2]
        if group == "data" and key in unread:
            raise UserError(f"{path}: {value}, but the data are {kind}. Leave it out.")


def _check_kind(where: str, network: ConfigDict, dataset: DataSet) -> None:
    """Refuses a network or an augmentation that is not for what the data set holds."""
    augment, kind = network.train.augment, dataset.kind
    reads = "texts" if network.model in TEXT_MODELS else "objects" if network.model in DETECTORS else "images"
    if reads != kind and (kind == "objects" or not network.get("fn", "")):  # what heads mean is the cfg's to say
        known = {"texts": ", ".join(TEXT_MODELS), "objects": ", ".join(DETECTORS), "images": "a resnet or vgg"}[kind]
        raise UserError(f"{where}.model: '{network.model}' does not read {kind}. Use {known}.")
    off = {key: value for others in AUGMENTATIONS.values() for key, value in others.items()}
    for key, value in off.items():
        if key not in AUGMENTATIONS[kind] and augment[key] != value:
            raise UserError(f"{where}.train.augment.{key}: {augment[key]}, but the data are {kind}.")
    if kind != "images":
        return
    side = min(dataset.shape[:2])
    for key in ("shift", "pad_crop", "cutout"):
        if augment[key] >= side:
            raise UserError(
                f"{where}.train.augment.{key}: {augment[key]} pixels leave nothing of images of {side} a side."
            )


def _mesh(config: ConfigDict) -> Mesh:
    """The devices that programs over a mesh run on. With elastic reduction, one: its bits are those of any number."""
    mesh = sharding.make_mesh(config.devices)
    if config.reduction == "elastic":
        if config.shards % processes.count():
            raise UserError(f"shards: {config.shards} cannot be dealt out to {processes.count()} processes.")
        return sharding.one_device()
    if config.parallelism == "pmap" and processes.count() > 1:
        raise UserError("parallelism: 'pmap' is for one process. Use 'jit', which runs on any number.")
    return mesh


def steps_of(network: ConfigDict, samples: int) -> int:
    """Optimiser steps of a part: given, or so many epochs over `samples`, rounded up to whole batches."""
    train = network.train
    return train.steps or max(1, -(-train.epochs * samples // train.batch))


def run_of(seed: int, replicate: int) -> Run:
    """Seed and replicate as the step takes them."""
    return Run(jnp.uint32(seed), jnp.uint32(replicate))


def _raw(apply: Apply, session: Session) -> Apply:
    """Gives a user's function images in 0..1, as it asked with `teacher.normalize = False`."""
    mean, std = np.float32(session.config.data.mean), np.float32(session.config.data.std)

    def on_raw(variables: PyTree, images: jax.Array) -> tuple[Any, dict[str, Any]]:
        scale, shift = (jnp.asarray(value).reshape(1, 1, 1, -1) for value in (std, mean))
        return apply(variables, images * scale + shift)

    return on_raw
