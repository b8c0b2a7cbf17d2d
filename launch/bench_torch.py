"""A distillation step against the same networks in PyTorch eager, as a ratio of times on this CPU.

    python launch/bench_torch.py text      [--pairs=20] [--batch=32] [--length=32]
    python launch/bench_torch.py detection [--pairs=20] [--batch=16] [--size=160] [--teacher=CFG] [--student=CFG]

`text`: six blocks of BERT of width 384 teach three of the same width by KD at T = 2, without dropout.
`detection`: a Darknet network teaches another by the objectness-scaled loss without suppression, without dropout; both
are the one that jkd brings unless cfgs are given, such as those of yolo-fastest-1.1-xl and yolo-fastest-1.1. There are
no true boxes in it, and no augmentation.

PyTorch's networks start from the weights of jkd's, and the loss of the first step has to be the same. Both do in one
call all that a step does: the teacher's forward pass, the student's forward and backward pass, the update by AdamW.
Calls take turns; printed is the median, with quartiles, of each pair's ratio, and beside it the rate at which the
loader gives batches over the rate of the step; for texts also the rate at which they are tokenised, which is done once,
before the first step. PyTorch is no requirement of jkd: install it first (`pip install torch`).
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jkd import build, xla
from jkd import config as configs
from jkd.data import batches, open_dataset
from jkd.models import darknet
from jkd.models.yolo import EPSILON
from jkd.train.given import Knowledge

WIDTH, DEPTH, HEADS, VOCABULARY, CLASSES = 384, (6, 3), 12, 8000, 6
LEARNING_RATE = 1e-3
EPS = 1e-12  # of LayerNorm
LAYER = ("query", "key", "value", "attention_output", "attention_norm", "intermediate", "output", "output_norm")

Step = Callable[[], Any]  # one step, waited for; returns its loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("text", "detection"))
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--teacher", default="small")
    parser.add_argument("--student", default="small")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("this compares with PyTorch, which is not installed: pip install torch")
    xla.set_flags()
    if options.task == "text":
        ours, theirs, loader = of_text(torch, options.batch or 32, options.length)
    else:
        ours, theirs, loader = of_detection(torch, options.batch or 16, options.size, options.teacher, options.student)
    for step in (ours, theirs, ours):
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
    for what, each in loader.items():
        print(f"{what} / step: {np.median(seconds) / each:.0f} times as many batches a second")


def timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


class Jkd:
    """A student's step on one batch, again and again, as training runs it.

    Attributes:
      session: of the config, whose only student it is.
      compiled: its program.
      teacher: the teacher's variables, as drawn.
      state: of training, before the next step.
    """

    def __init__(self, config: ConfigDict, batch: dict[str, np.ndarray]) -> None:
        config = configs.resolve(config)
        (name,) = config.students
        self.session, self.student = build.open_session(config), config.students[name]
        goal = self.session.objective_of(self.student, len(config.graph.views), f"students.{name}")
        apply = self.session.apply_of(config.teacher)
        self.compiled = self.session.program(self.student, goal, apply, 1000, f"students.{name}")
        run = build.run_of(0, 0)
        self.teacher = jax.jit(self.session.module(config.teacher).init)(jax.random.key(1), batch["input"])
        self.state = self.compiled.step.place(self.compiled.init(run, self.teacher))
        self._advance = self.compiled.step.bind(self.teacher, Knowledge(), run)
        count = len(batch["input"])
        rows = {"label": np.full(count, -1, np.int32), "id": np.arange(count, dtype=np.int32)}
        rows |= {"node": rows["id"]} | self.session.task.example(count) | batch
        self._chunk = {name: array[None] for name, array in rows.items()}
        self._chunk |= {"step": np.zeros(1, np.int32), "count": np.int32(1), "record": np.asarray(False)}

    def __call__(self) -> float:
        self.state, metrics = self._advance(self.state, self._chunk)
        jax.block_until_ready((self.state, metrics))
        return float(metrics["loss"][0])

    def loader(self) -> dict[str, float]:
        """The seconds in which the loader makes a batch, and, of texts, in which a batch of them is tokenised."""
        config, student = self.session.config, self.student
        train, found = open_dataset(config.data).train, {}
        inputs = {"input": self.session.inputs_of(student)}
        index, size = np.arange(len(train)), student.train.batch
        stream = batches(train, index, train.labels, inputs=inputs, batch=size, steps=201, seed=0, replicate=0)
        start = time.perf_counter()
        next(stream)  # the first makes all tokens
        if train.kind == "texts":
            found["tokenising"] = (time.perf_counter() - start) / len(train) * size
        start = time.perf_counter()
        for _ in range(200):
            next(stream)
        return found | {"loader": (time.perf_counter() - start) / 200}


def settings(config: ConfigDict, batch: int) -> None:
    for network in (config.teacher, config.student):
        network.train.update(batch=batch, steps=1000)
        network.train.optimizer.update(name="adamw", learning_rate=LEARNING_RATE)


def of_text(torch: Any, batch: int, length: int) -> tuple[Step, Step, dict[str, float]]:
    """jkd's step, PyTorch's from the same weights, and the seconds of a batch."""
    config = configs.default()
    config.data.update(source="trec", max_length=length, buckets=(), vocabulary=VOCABULARY)
    config.graph.update(views=("teacher", "lexical"), diagnosis="none")
    for network, depth in zip((config.teacher, config.student), DEPTH, strict=True):
        network.update(model="bert", width=WIDTH, depth=depth, attention_heads=HEADS, pooling="mean")
    settings(config, batch)
    config.students = {"kd": {"objective": {"kd": {"weight": 1.0, "temperature": 2.0}}}}
    words = build.open_session(configs.resolve(config)).inputs_of(config.teacher).tokenizer.size  # type: ignore[attr-defined]
    ids = np.random.default_rng(0).integers(5, words, (batch, length)).astype(np.int32)  # 0 to 4 are special
    ours = Jkd(config, {"input": ids})
    theirs = text_step(torch, ids, (ours.teacher["params"], ours.state.params))
    return ours, same_start(ours, theirs), ours.loader()


def same_start(ours: Jkd, theirs: Step) -> Step:
    """PyTorch's step, once the loss of its first is that of jkd's."""
    first = ours(), theirs()
    print(f"loss at the start: {first[0]:.6f}, PyTorch's {first[1]:.6f}", flush=True)
    if not np.isclose(*first, rtol=1e-3):
        sys.exit("these are not the same step")
    return theirs


def text_step(torch: Any, ids: np.ndarray, params: tuple[Any, Any]) -> Step:
    nn = torch.nn

    class Bert(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, depth: int, params: Any) -> None:
            super().__init__()
            params = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), params)
            words, places = params["word"]["embedding"], params["position"]["embedding"]
            self.word, self.place = nn.Embedding(*words.shape), nn.Embedding(*places.shape)
            self.norm = nn.LayerNorm(WIDTH, eps=EPS)
            block = nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", layer_norm_eps=EPS, batch_first=True
            )
            self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
            self.head = nn.Linear(WIDTH, CLASSES)
            self.word.weight.data = words
            self.place.weight.data = places + params["type"]["embedding"][0]
            filled(self.norm, params["embedding_norm"])
            filled(self.head, params["classifier"])
            for number, layer in enumerate(self.blocks.layers):
                own = {name: params[f"layer{number}_{name}"] for name in LAYER}
                three = [own[name] for name in ("query", "key", "value")]
                layer.self_attn.in_proj_weight.data = torch.cat([each["kernel"].T for each in three]).contiguous()
                layer.self_attn.in_proj_bias.data = torch.cat([each["bias"] for each in three])
                filled(layer.self_attn.out_proj, own["attention_output"])
                filled(layer.linear1, own["intermediate"])
                filled(layer.linear2, own["output"])
                filled(layer.norm1, own["attention_norm"])
                filled(layer.norm2, own["output_norm"])

        def forward(self, tokens: Any) -> Any:
            padding = tokens == 0
            x = self.norm(self.word(tokens) + self.place.weight[: tokens.shape[1]])
            x = self.blocks(x, src_key_padding_mask=padding)
            real = (~padding).unsqueeze(-1).to(x.dtype)
            return self.head((x * real).sum(1) / real.sum(1))

    def filled(module: Any, leaf: Any) -> None:
        module.weight.data = leaf["scale"] if "scale" in leaf else leaf["kernel"].T.contiguous()
        module.bias.data = leaf["bias"]

    teacher, student = (Bert(depth, each) for depth, each in zip(DEPTH, params, strict=True))
    teacher.eval()
    student.train()

    def loss(student: Any, teacher: Any) -> Any:
        target = nn.functional.log_softmax(teacher / 2.0, -1)
        return 4.0 * nn.functional.kl_div(
            nn.functional.log_softmax(student / 2.0, -1), target, log_target=True, reduction="batchmean"
        )

    return torch_step(torch, teacher, student, torch.from_numpy(ids.astype(np.int64)), loss)


def of_detection(torch: Any, batch: int, size: int, teacher: str, student: str) -> tuple[Step, Step, dict[str, float]]:
    """jkd's step, PyTorch's from the same weights, and the seconds of a batch."""
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.uint8)
    config = configs.default()
    config.task = "detection"
    config.data.update(source="shapes", limit=4 * batch, test_limit=batch, image_size=size)
    config.graph.update(views=("teacher", "crop"), diagnosis="none")
    for network, cfg in ((config.teacher, teacher), (config.student, student)):
        network.update(model="yolo", cfg=cfg)
    settings(config, batch)
    config.students = {"scaled": {"objective": {"objectness_scaled": {"weight": 1.0, "window": 0}}}}
    ours = Jkd(config, {"input": images})
    variables = ours.teacher, {"params": ours.state.params, "batch_stats": ours.state.batch_stats}
    modules = [ours.session.module(network) for network in (ours.session.config.teacher, ours.student)]
    networks = [darknet_in(torch, module.cfg, each) for module, each in zip(modules, variables, strict=True)]
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    theirs = torch_step(torch, networks[0].eval(), networks[1].train(), pixels, scaled_loss(torch))
    return ours, same_start(ours, theirs), ours.loader()


def darknet_in(torch: Any, cfg: darknet.Cfg, variables: Any) -> Any:
    """The network of a cfg in PyTorch, with the weights that it has in jkd."""
    nn = torch.nn
    params, stats = jax.tree.map(np.array, (variables["params"], variables["batch_stats"]))
    act = {"leaky": nn.LeakyReLU(0.1), "linear": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6()}
    act |= {"mish": nn.Mish(), "swish": nn.SiLU(), "logistic": nn.Sigmoid()}
    sizes = darknet.shapes(cfg)

    def convolution(index: int, layer: darknet.Convolutional) -> Any:
        own, plain = params[f"conv{index}"], not layer.batch_normalize
        made = nn.Conv2d(
            darknet.channels_in(cfg, index, sizes),
            layer.filters,
            layer.size,
            layer.stride,
            layer.padding * layer.dilation,
            layer.dilation,
            layer.groups,
            bias=plain,
        )
        made.weight.data = torch.from_numpy(own["kernel"].transpose(3, 2, 0, 1).copy())
        if plain:
            made.bias.data = torch.from_numpy(own["bias"])
            return nn.Sequential(made, act[layer.activation])
        norm, after = nn.BatchNorm2d(layer.filters, eps=EPSILON, momentum=0.1), params[f"norm{index}"]
        norm.weight.data, norm.bias.data = torch.from_numpy(after["scale"]), torch.from_numpy(after["bias"])
        running = stats[f"norm{index}"]
        norm.running_mean, norm.running_var = torch.from_numpy(running["mean"]), torch.from_numpy(running["var"])
        return nn.Sequential(made, norm, act[layer.activation])

    def simple(layer: darknet.Layer) -> Any:
        match layer:
            case darknet.Upsample():
                return nn.Upsample(scale_factor=layer.stride)
            case darknet.AvgPool():
                return nn.AdaptiveAvgPool2d(1)
            case darknet.MaxPool():
                first, last = layer.padding // 2, layer.padding - layer.padding // 2
                return nn.Sequential(
                    nn.ConstantPad2d((first, last, first, last), -torch.inf), nn.MaxPool2d(layer.size, layer.stride)
                )
            case _:
                return nn.Identity()

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                convolution(index, layer) if isinstance(layer, darknet.Convolutional) else simple(layer)
                for index, layer in enumerate(cfg.layers)
            )

        def forward(self, x: Any) -> Any:
            found, heads = list[Any](), []
            for layer, module in zip(cfg.layers, self.layers, strict=True):
                match layer:
                    case darknet.YoloHead():
                        rows = x.permute(0, 2, 3, 1)
                        heads.append(rows.reshape(*rows.shape[:3], len(layer.mask), -1))
                    case darknet.Route():
                        parts = [found[at].chunk(layer.groups, 1)[layer.group_id] for at in layer.sources]
                        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
                    case darknet.Shortcut():
                        for at in layer.sources:
                            x = x + found[at]
                        x = act[layer.activation](x)
                    case _:
                        x = module(x)
                found.append(x)
            return heads

    return Network()


def scaled_loss(torch: Any) -> Callable[[Any, Any], Any]:
    """Objectness-scaled distillation (Mehta, Ozturk 2018), as `jkd.losses.detection` has it; the mean over heads."""
    sure = torch.nn.functional.logsigmoid

    def divergence(student: Any, teacher: Any) -> Any:
        yes, no = sure(teacher) - sure(student), sure(-teacher) - sure(-student)
        return torch.sigmoid(teacher) * yes + torch.sigmoid(-teacher) * no

    def box(head: Any) -> Any:
        return torch.cat([torch.sigmoid(head[..., :2]), head[..., 2:4]], -1)

    def of_head(student: Any, teacher: Any) -> Any:
        apart = ((box(student) - box(teacher)) ** 2).sum(-1)
        classes = divergence(student[..., 5:], teacher[..., 5:]).sum(-1)
        objectness = divergence(student[..., 4], teacher[..., 4])
        return (objectness + torch.sigmoid(teacher[..., 4]) * (apart + classes)).sum() / len(student)

    def loss(student: Any, teacher: Any) -> Any:
        return sum(of_head(*pair) for pair in zip(student, teacher, strict=True)) / len(student)

    return loss


def torch_step(torch: Any, teacher: Any, student: Any, rows: Any, loss: Callable[[Any, Any], Any]) -> Step:
    """A step of two networks on rows, with a loss of their outputs."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)

    def step() -> float:
        with torch.no_grad():
            target = teacher(rows)
        value = loss(student(rows), target)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step


if __name__ == "__main__":
    main()
