"""Detection through the whole engine, on rendered shapes and the smallest network that has two heads."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jkd import build, digest, files, parts, run
from jkd import config as configs
from jkd.build import Session
from jkd.data import Split, make_split
from jkd.errors import UserError
from jkd.graph import store
from jkd.methods import METHODS
from jkd.parts.student import student_training
from jkd.parts.teacher import found_teacher
from jkd.predict import predict
from jkd.tasks.detection import detection
from jkd.train import metrics
from jkd.train.loop import fit

from .conftest import put_value

CWD = {"weight": 0.1, "student_tap": "neck*", "teacher_tap": "neck*"}
CFG = """
[net]
width=32
height=32
channels=3

[convolutional]
batch_normalize=1
filters=4
size=3
stride=4
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=7
size=1
stride=1
activation=linear

[yolo]
mask=1
anchors=8,8, 14,14
classes=2
num=2

[route]
layers=-3

[upsample]
stride=2

[convolutional]
filters=7
size=1
stride=1
activation=linear

[yolo]
mask=0
anchors=8,8, 14,14
classes=2
num=2
"""


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cfg") / "tiny.cfg"
    path.write_text(CFG)
    return path


@pytest.fixture(scope="module")
def config_of(cfg: Path) -> Any:
    def make(**changes: Any) -> ConfigDict:
        config = configs.default()
        config.name, config.task, config.devices = "tiny", "detection", 1
        config.data.update(source="shapes", image_size=32, limit=30, test_limit=6, val=0.2, labels=16, max_boxes=4)
        config.data.shapes.update(classes=2, most=3, smallest=0.1, largest=0.25)
        config.graph.update(views=("teacher", "crop", "context"), k=3, diagnosis="holdout")
        for network in (config.teacher, config.student):
            network.update(model="yolo", cfg=str(cfg))
            network.train.update(steps=6, batch=8, log_every=2, checkpoint_every=0)
            network.train.augment.update(flip=True)
        joined = {"yolo": 1.0, "pseudo_labels": 0.5, "joined_beliefs": 1.0, "projection": 0.1}
        config.students = {
            "plain": {"objective": {"yolo": 1.0}, "sampling": {"of": "labelled"}},
            "edges": {"objective": joined, "graph": {"edges": "real"}},
        }
        config.report.reference = "plain"
        for path, value in changes.items():
            put_value(config, path.replace("__", "."), value)
        return config

    return make


@pytest.fixture(scope="module")
def done(config_of: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("detection") / "run"
    summary = run.distill(config_of(), workdir, quiet=True)
    assert summary is not None
    return workdir, summary


def test_a_run_measures_every_network(done: tuple[Path, dict[str, Any]]) -> None:
    workdir, summary = done
    assert summary["primary"] == {"metric": "map50", "direction": "max"}
    for name in ("plain", "edges"):
        measured = summary["students"][name]["metrics"]
        assert {"map50", "map", "voc_map50", "agreement"} <= set(measured)
        assert 0 <= measured["map50"]["mean"] <= 1
        receipt = summary["receipt"][name]
        assert receipt["latency_answer_ms"] > 0 and receipt["latency_ms"] > 0  # a busy machine may turn them round
    assert summary["students"]["plain"]["labels"] == {"train": 16, "choose": 0}
    assert summary["students"]["edges"]["labels"] == {"train": 16, "choose": 6}  # images, not the objects in them
    stored = files.read_arrays(workdir / "replicates/0/students/plain/0/predictions.safetensors")
    assert stored["boxes"].shape == (6, 100, 4) and set(stored) == {"boxes", "scores", "classes", "mask"}
    assert run.evaluate(workdir, "plain/0")["map50"] == summary["students"]["plain"]["metrics"]["map50"]["mean"]
    assert run.evaluate(workdir, "plain/0", min_score=1.0)["recall_100"] == 0
    assert "latency of answers" in (workdir / "report/index.html").read_text()
    with pytest.raises(UserError, match=r"--min-score: expected a score in 0\.\.1"):
        run.evaluate(workdir, "plain/0", min_score=1.5)


def test_the_graph_is_of_objects(done: tuple[Path, dict[str, Any]], config_of: Any) -> None:
    graph = store.load(done[0] / "replicates/0/graph")
    assert graph.boxes is not None and graph.kind == "object" and graph.counts["nodes"]["object"] == len(graph)
    assert set(graph.relations) == {"co_occurs", "spatial"} and graph.counts["edges"]["spatial"] > 0
    assert graph.diagnosis is not None and {"crop", "context"} <= {row.view for row in graph.diagnosis.rows} | {"mean"}
    session = build.open_session(configs.resolve(config_of()))
    split = make_split(session.dataset, session.config.data, 0)
    annotated = split.pool[split.labelled]
    true = session.dataset.train.objects(annotated)  # type: ignore[attr-defined]
    labelled = graph.labels >= 0
    assert np.isin(graph.sample[labelled], annotated).all() and labelled.sum() == len(true)
    np.testing.assert_array_equal(graph.boxes[labelled], session.dataset.train.object_boxes[true])  # type: ignore[attr-defined]
    assert "object:" in run.graph("export", done[0], to=str(done[0] / "graph.json")) or (
        "object:shapes/train/" in (done[0] / "graph.json").read_text()
    )


def test_the_report_shows_boxes_of_three_kinds(done: tuple[Path, dict[str, Any]]) -> None:
    page = (done[0] / "report/index.html").read_text()
    assert all(f'class="boxes {kind}"' in page for kind in ("truth", "teacher", "student"))
    assert "Class by class" in page and "mAP50 of each class" in page and "Accuracy, ECE" not in page
    by_class = files.read_json(done[0] / "report/summary.json")["by_class"]["map50"]
    assert list(by_class["teacher"]) == files.read_json(done[0] / "manifest.json")["data"]["classes"]
    cards = files.read_json(done[0] / "report/cards.json")["cards"]
    assert len(cards) == 6 and {"truth", "teacher", "student", "right"} <= set(cards[0])


@pytest.mark.long
def test_what_a_student_finds_is_explained_by_the_objects_of_the_graph(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config_of: Any
) -> None:
    monkeypatch.setattr("jkd.evaluate.detection.SHOWN", 0.002)  # six steps of training make nobody sure
    run.distill(config_of(), tmp_path / "run", quiet=True)
    stored = files.read_arrays(tmp_path / "run/replicates/0/students/edges/0/predictions.safetensors")
    graph = store.load(tmp_path / "run/replicates/0/graph")
    found = detection(None, ()).found(stored)  # type: ignore[misc]
    assert len(found.sample) and len(stored["found_projection"]) == len(found.sample)
    assert len(stored["nodes"]) == len(graph)
    written = files.read_json(tmp_path / "run/report/cards.json")
    assert written["surrogate"]["n"] == len(found.sample) and 0 <= written["surrogate"]["agreement"] <= 1
    boxes = [box for card in written["cards"] for box in card["student"] if "neighbours" in box]
    assert boxes and all(len(box["neighbours"]) == 5 for box in boxes)
    near = boxes[0]["neighbours"][0]
    np.testing.assert_allclose(near["box"], graph.boxes[near["node"]], atol=0.01)  # type: ignore[index]
    dataset = build.open_session(configs.resolve(config_of())).dataset
    assert near["id"] == dataset.train.id(near["sample"])
    Image.fromarray(dataset.test.images(np.arange(1))[0]).save(tmp_path / "new.png")  # type: ignore[attr-defined]
    (told,) = predict(tmp_path / "run", "edges/0", tmp_path / "new.png", neighbours=5)
    mine = found.sample == 0
    assert told["input"] == "new.png" and len(told["answers"]) == mine.sum() > 0
    inside = np.clip(found.boxes[mine], 0, 32)  # type: ignore[index]
    np.testing.assert_allclose([answer["box"] for answer in told["answers"]], inside, atol=0.02)
    cosines = np.sort(stored["found_projection"][mine] @ stored["nodes"].T, axis=1)[:, ::-1][:, :5]
    near_each = [[near["cosine"] for near in answer["neighbours"]] for answer in told["answers"]]
    np.testing.assert_allclose(near_each, cosines, atol=1e-4)


def _training(session: Session, split: Split, workdir: Path, name: str, made_in: Session | None = None) -> Any:
    place = parts.Place(workdir, 0)
    teacher = found_teacher(made_in or session, split, place)
    assert teacher is not None
    return student_training(session, split, teacher, store.load(place.graph), name, 0, 0)[0]


def _digest(state: Any) -> str:
    return digest.of_tree(jax.tree.map(np.asarray, {"params": state.params, "objective": state.objective}))


def test_cut_it_goes_on_to_the_same_bits(done: tuple[Path, dict[str, Any]], config_of: Any, tmp_path: Path) -> None:
    session = build.open_session(configs.resolve(config_of()))
    split = make_split(session.dataset, session.config.data, 0)
    training = _training(session, split, done[0], "edges")
    neighbours = training.setup.knowledge.neighbours
    assert neighbours is not None and len(neighbours) == 3 + 2  # views, and what stands beside or goes with an object
    assert (np.asarray(neighbours[4]) >= 0).any()  # `spatial`; of `co_occurs` so small a set may have none
    setup = dataclasses.replace(training.setup, folder=tmp_path, inputs="these")
    assert int(fit(setup, training.init(), stop_at=4).step) == 4
    resumed = fit(setup, training.init())
    result = files.read_signed(done[0] / "replicates/0/students/edges/0/result.json")
    assert digest.of_tree(jax.tree.map(np.asarray, resumed.variables)) == result["params"]


@pytest.mark.long
def test_elastic_bits_are_those_of_any_number_of_devices_and_micro_batches_agree(
    done: tuple[Path, dict[str, Any]], config_of: Any
) -> None:
    made_in = build.open_session(configs.resolve(config_of()))

    def losses(**changes: Any) -> tuple[list[float], str]:
        session = build.open_session(configs.resolve(config_of(**changes)))
        split = make_split(session.dataset, session.config.data, 0)
        training = _training(session, split, done[0], "edges", made_in)
        step, state = training.setup.step, training.init()
        advance = step.bind(training.setup.teacher, training.setup.knowledge, training.setup.run)
        state, seen = step.place(state), []
        for chunk in training.setup.batches(0):
            state, line = advance(state, chunk | {"record": np.asarray(True)})
            seen.append(float(line["loss"][0]))
        return seen, _digest(state)

    one, two = (losses(reduction="elastic", shards=2, devices=devices) for devices in (1, 2))
    assert one == two
    whole, _ = losses()
    assert one[0][0] == pytest.approx(whole[0], rel=0.05)  # BatchNorm within a shard
    mosaic: dict[str, Any] = {"student__train__augment__mosaic": 1.0}  # of images of all shards
    assert losses(reduction="elastic", shards=2, **mosaic)[0][0] == pytest.approx(losses(**mosaic)[0][0], rel=0.05)
    parted, _ = losses(student__train__accumulate=2)
    assert parted[0] == pytest.approx(whole[0], rel=0.05)


@pytest.mark.slow
def test_every_term_of_detectors_trains(config_of: Any, tmp_path: Path) -> None:
    names = [name for name, method in METHODS.items() if method.objects]
    config = config_of(graph__diagnosis="folds", graph__folds=2, data__val=0.0)
    terms = dict.fromkeys(names, 0.1) | {"cwd": CWD, "joined_beliefs": 0.1}
    config.students = {"all": {"objective": terms, "graph": {"edges": "real"}}}
    config.report.reference = "all"
    summary = run.distill(config, tmp_path / "run", quiet=True)
    assert summary is not None and summary["labels"] == {"train": 16, "choose": 0}  # folds spend none
    material = store.load(tmp_path / "run/replicates/0/graph").material
    assert material is not None and len(material.edges["context"].ids) == 2  # what a fold's teacher says of the rest
    last = metrics.read(tmp_path / "run/replicates/0/students/all/0/metrics.jsonl")[-1]
    assert all(np.isfinite(last[key]) for key in last)
    assert {f"{name}_{pair}" for name in ("fgd", "cwd", "class_kd") for pair in ("0_0", "1_1")} <= set(last)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": "classification"}, "'classification' is about images or texts, but the data are objects"),
        ({"data__source": "digits"}, "'detection' is about objects, but the data are images"),
        ({"teacher__model": "mlp"}, "does not read objects"),
        ({"teacher__cfg": ""}, r"teacher\.cfg"),
        ({"teacher__cfg": "nowhere.cfg"}, "nowhere.cfg"),
        ({"student__train__augment__mixup": 0.5}, "mixup"),
        ({"data__noise": "symmetric", "data__noise_rate": 0.1}, r"data\.noise"),
        ({"graph__views": ("input",)}, "made of objects"),
        ({"data__shapes__classes": 9}, "2 to 8 classes"),
        ({"data__classes": ("cat", "dog")}, r"data\.classes: shapes has classes of its own"),
        ({"data__std": (0.2,)}, r"data\.std: \[0\.2\], but the data are objects"),
        ({"data__image_size": 36}, "does not fit the cfg"),
        (
            {"student__cfg": "small", "student__cfg_width": 0.5, "student__init": "it.weights"},
            r"students\.edges\.cfg_width = 0\.5: it\.weights has the weights of the cfg as it is",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    config_of: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run.distill(config_of(**changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "term, old, new, message",
    [
        (
            "objectness_scaled",
            "anchors=8,8,",
            "anchors=9,8,",
            r"plain\.objective\.objectness_scaled: raw heads mean other",
        ),
        ("class_kd", "num=2", "num=2\nscale_x_y=1.1", "raw heads mean other boxes"),
        ("confident_hint", "num=2", "num=2\nnew_coords=1", "it takes logits, and a cfg says new_coords=1"),
    ],
)
def test_terms_compare_heads_that_mean_the_same(
    config_of: Any, tmp_path: Path, term: str, old: str, new: str, message: str
) -> None:
    other = tmp_path / "other.cfg"
    other.write_text(CFG.replace(old, new))
    config = config_of(student__cfg=str(other))
    config.students = {"plain": {"objective": {"yolo": 1.0, term: 1.0}}}
    with pytest.raises(UserError, match=message):
        run.distill(config, tmp_path / "run", quiet=True)


def test_a_term_of_detectors_asks_for_objects(tmp_path: Path) -> None:
    config = configs.default()
    config.students = {"kd": {"objective": {"kd": 1.0, "yolo": 1.0}}}
    with pytest.raises(UserError, match=r"students\.kd\.objective\.yolo: it is about objects, but the data are images"):
        run.distill(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_network_are_refused(config_of: Any, tmp_path: Path) -> None:
    (tmp_path / "other.weights").write_bytes(bytes([0, 0, 0, 0, 2, 0, 0, 0]) + bytes(412))
    with pytest.raises(UserError, match=r"other\.weights"):
        run.distill(config_of(teacher__init=str(tmp_path / "other.weights")), tmp_path / "run", quiet=True)
