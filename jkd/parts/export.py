"""A finished network taken out of its run: weights as others read them, and a program that runs without jkd."""

from typing import Any

import jax
import numpy as np
from jax import export
from ml_collections import ConfigDict

from jkd import __version__, build, compress, digest, files
from jkd import config as configs
from jkd.build import Session
from jkd.data.text_inputs import Texts
from jkd.errors import UserError, some
from jkd.models import Bert
from jkd.models.yolo import Yolo
from jkd.places import Path
from jkd.pretrained import bert, darknet, darknet_weights, torch_images
from jkd.train.state import PyTree

PROGRAM, ABOUT, TOKENIZER = "program.jax", "network.json", "tokenizer.json"
PLATFORMS = ("cpu", "cuda", "tpu")
SAMPLES = 64  # of the test split, whose answers by the program are held against the network's
LEAST = 8  # tokens that a text is filled up to at least, so that no row of n-grams is empty
# Relative and absolute: compiled for any number of samples, a program rounds otherwise than for one batch size.
CLOSE = {"float32": 1e-3, "bfloat16": 5e-2}
READS = ("image_size", "fit", "interpolation", "mean", "std", "max_length")  # how data became the program's input


def export_network(
    session: Session, network: ConfigDict, apply: build.Apply, variables: PyTree, about: dict[str, Any], folder: Path
) -> str:
    """Writes a network into a new folder; returns what to tell of it.

    `program.jax` is the network with its weights as `jax.export` serialises it, for any number of samples, on CPU, GPU
    and TPU: `jax.export.deserialize(data).call(samples)` gives what `Task.predict` names. Rows of token ids may be of
    any length from `LEAST` to `data.max_length`. `network.json`, which comes last, says what it reads and gives, and
    the SHA-256 of every other file. For the weights see `_save`; a network of texts has its `tokenizer.json`, too.

    Args:
      session: of the run.
      network: the network's config.
      apply: its forward pass.
      variables: its variables.
      about: what is known of it, JSON-ready, kept in `network.json`.
      folder: where to; there must be nothing in it.

    Raises:
      UserError: the folder is not empty or cannot be written, or the program gives other answers than the network.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--to: {folder} is there and not empty. Give a folder that is new.")
    inputs, module = session.inputs_of(network), session.module(network)
    program = _program(session, network, apply, variables)
    farthest, samples = _check(session, network, apply, variables, program)
    files.make_folder(folder)
    _save(folder, module, variables, session)
    if isinstance(inputs, Texts):
        inputs.tokenizer.save(folder / TOKENIZER)
    files.write_bytes(folder / PROGRAM, bytes(program.serialize()))
    names = sorted(path.name for path in folder.iterdir())
    kind, data = session.dataset.kind, configs.as_dict(session.config.data)
    described = about | {
        "jkd": __version__,
        "model": network.model,
        "classes": list(session.dataset.classes),
        "data": {"kind": kind} | {key: data[key] for key in READS if key in build.DATA_KEYS[kind]},
        "input": _described(program.in_avals[0]),
        "outputs": {name: _described(aval) for name, aval in _outputs(program).items()},
        "program": {"jax": jax.__version__, "platforms": list(program.platforms)},
        "files": {name: digest.of_file(folder / name) for name in names},
    }
    files.write_signed(folder / ABOUT, described)
    return (
        f"wrote {folder}: {some([*names, ABOUT], 9)}. On {samples} test samples the program's answers are within "
        f"{farthest:.1e} of the network's."
    )


def _save(folder: Path, module: Any, variables: PyTree, session: Session) -> None:
    """Writes the weights as the network's family has them elsewhere.

    bert            `config.json` and `model.safetensors` of Hugging Face (see `jkd.pretrained.bert.save`)
    vgg, resnet     `model.safetensors`, names and axes as torch has them
    yolo            `model.cfg`, `model.weights` and `model.names` of Darknet
    all others      `model.safetensors`, names being paths in Flax, `params/hidden0/kernel`
    """
    classes = session.dataset.classes
    if isinstance(module, Bert):
        bert.save(folder, variables, module, dict(enumerate(classes)))
    elif isinstance(module, torch_images.Network):
        torch_images.save(folder / "model.safetensors", variables, module)
    elif isinstance(module, Yolo):
        cfg = module.cfg.at_size(*session.dataset.shape[:2])
        files.write_bytes(folder / "model.cfg", darknet.dump(cfg).encode())
        darknet_weights.save(folder / "model.weights", variables, cfg)
        files.write_bytes(folder / "model.names", "".join(f"{name}\n" for name in classes).encode())
    else:
        compress.save_variables(folder / "model.safetensors", variables)


def _program(session: Session, network: ConfigDict, apply: build.Apply, variables: PyTree) -> export.Exported:
    """From samples as the data set has them (pixels, token ids) to the network's answers, the weights inside."""
    inputs, predict = session.inputs_of(network), session.task_of(network).predict

    def answer(raw: jax.Array) -> dict[str, jax.Array]:
        return predict({}, *apply(variables, inputs.fed(raw)))

    example = inputs.read(session.dataset.test, np.arange(1), max(inputs.lengths, default=0))
    if inputs.lengths:
        longest = max(inputs.lengths)
        shape = export.symbolic_shape("b, l", constraints=[f"l >= {min(LEAST, longest)}", f"l <= {longest}"])
    else:
        shape = (*export.symbolic_shape("b"), *example.shape[1:])
    return export.export(jax.jit(answer), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, example.dtype))


def _check(
    session: Session, network: ConfigDict, apply: build.Apply, variables: PyTree, program: export.Exported
) -> tuple[float, int]:
    """How far the program's answers are from the network's at most, and on how many samples of the test split."""
    inputs, test = session.inputs_of(network), session.dataset.test
    index = np.arange(min(SAMPLES, inputs.together, len(test)))
    ours = session.predictor(apply, network)(variables, test, index)
    theirs = program.call(inputs.read(test, index, max(inputs.lengths, default=0)))
    apart = {name: np.abs(np.float64(theirs[name]) - np.float64(ours[name])) for name in ours}
    close = CLOSE[network.dtype]
    odd = [name for name, gap in apart.items() if (gap > close * (1 + np.abs(np.float64(ours[name])))).any()]
    if odd:
        raise UserError(f"the program gives other {some(odd)} than the network does, so nothing was written.")
    return max(float(gap.max(initial=0)) for gap in apart.values()), len(index)


def _outputs(program: export.Exported) -> dict[str, Any]:
    found: dict[str, Any] = jax.tree.unflatten(program.out_tree, program.out_avals)
    return found


def _described(aval: Any) -> dict[str, Any]:
    """Type and shape; of the shape, `b` is the number of samples and `l` of tokens."""
    return {"dtype": aval.dtype.name, "shape": [size if isinstance(size, int) else str(size) for size in aval.shape]}
