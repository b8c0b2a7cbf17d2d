"""Runs on texts, end to end: a user's own CSV, terms over layers and tokens, cards, and the same bits everywhere."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import config as configs
from jkd import files, parts, run
from jkd.build import open_session
from jkd.data import make_split
from jkd.errors import UserError
from jkd.graph import store
from jkd.parts.student import student_training
from jkd.parts.teacher import found_teacher
from jkd.predict import predict
from jkd.train import record
from jkd.train.loop import fit

WORDS = {"sport": "ball team goal match score", "food": "soup bread taste salt cook", "sky": "star moon cloud rain sun"}
HOSTILE = ["<script>alert(1)</script> ball", "\x1b[31mred\x1b[0m soup", "star " * 4000, "\u202emoon\u202c cloud"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 short texts in three classes, the last of them hostile."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("texts") / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "words", "topic"])
        for number in range(156):
            topic = list(WORDS)[number % 3]
            writer.writerow([number, " ".join(rng.choice(WORDS[topic].split(), rng.integers(2, 7))), topic])
        for number, text in enumerate(HOSTILE):
            writer.writerow([156 + number, text, ("sport", "food", "sky", "sky")[number]])
    return path


def _config(table: Path, students: dict[str, Any], **changes: Any) -> Any:
    config = configs.default()
    config.data.update(source="texts", path=str(table), text="words", label="topic", vocabulary=120)
    config.data.update(max_length=12, buckets=(8,), max_chars=500)
    config.graph.update(views=("teacher", "lexical"), diagnosis="none")
    for network, width in ((config.teacher, 16), (config.student, 8)):
        network.update(model="bert", width=width, depth=2, attention_heads=2, feed_forward=16)
        network.train.update(steps=12, batch=16, log_every=6, checkpoint_every=6)
        network.train.optimizer.update(name="adamw", learning_rate=3e-3)
    config.student.depth = 1
    with config.ignore_type():
        config.student.graph.update(view="mean", strength=0.8, mix=0.5)
    config.students = students
    config.report.cards = 40
    for key, value in changes.items():
        node: Any = config
        *groups, name = key.split("__")
        for group in groups:
            node = node[group]
        node[name] = value
    return config


def _params(workdir: Path) -> dict[str, str]:
    found = sorted(workdir.rglob("result.json"))
    return {str(path.parent.relative_to(workdir)): files.read_json(path).get("params") for path in found}


RELATIONS = {name: {"weight": 0.1, "layers": "final", "heads": 2} for name in ("query_relations", "value_relations")}
EVERYTHING = {"kd": 0.5, "hidden": 0.1, "embedding_layer": 0.1, "attention": 0.1, "attention_kl": 0.1} | RELATIONS


@pytest.fixture(scope="module")
def done(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    students = {
        "tokens": {"objective": EVERYTHING, "train": {"augment": {"mask": 0.1, "drop": 0.1}}},
        "lexical": {
            "objective": {"joined_beliefs": 0.9, "projection": 0.1},
            "graph": {"edges": "real"},
            "model": "fasttext",
            "width": 8,
            "rows": 256,
            "hidden": 8,
        },
    }
    workdir = tmp_path_factory.mktemp("run") / "texts"
    return workdir, run.distill(_config(table, students), workdir, quiet=True)


def test_a_users_own_csv_needs_its_columns_named_and_nothing_else(done: tuple[Path, dict[str, Any]]):
    workdir, summary = done
    assert set(summary["students"]) == {"tokens", "lexical"}
    manifest = files.read_json(workdir / "manifest.json")
    assert manifest["data"]["classes"] == sorted(WORDS)
    counts = {
        kind: sum(each[kind] for each in manifest["data"]["counts"].values()) for kind in ("cut", "control", "bidi")
    }
    assert counts["cut"] >= 1 and counts["control"] >= 1 and counts["bidi"] >= 1
    lines = (workdir / "replicates/0/students/tokens/0/metrics.jsonl").read_text()
    assert "hidden_0_1" in lines and "value_relations_0_1" in lines  # which layer learns from which is on record
    networks = manifest["networks"]
    assert networks["students.tokens"]["taps"]["hidden_0_1"] == [["layer0/hidden"], ["layer1/hidden"]]
    assert networks["teacher"]["texts"] == networks["students.lexical"]["texts"]
    assert networks["teacher"]["texts"]["max_length"] == 12 and sum(networks["teacher"]["texts"]["cut"].values()) == 2


@pytest.mark.long
def test_overrides_alone_make_a_run_of_a_users_own_csv(table: Path, tmp_path: Path, root: Path):
    from jkd.cli import main

    own = [f"--config.data.path={table}", "--config.data.text=words", "--config.data.label=topic"]
    little = ["--config.data.vocabulary=120", "--config.data.buckets=()", "--config.data.max_length=16"]
    config = f"--config={root}/configs/texts.py:smoke"
    assert main(["distill", config, *own, *little, f"--workdir={tmp_path / 'run'}", "--quiet"]) == 0
    cards = files.read_json(tmp_path / "run/report/cards.json")
    assert cards["student"] == "knowledge_graph" and all(len(card["neighbours"]) for card in cards["cards"])
    assert "<blockquote" in (tmp_path / "run/report/index.html").read_text()


@pytest.fixture
def folder(table: Path, tmp_path: Path) -> Path:
    """A Hugging Face folder of a small BERT with random weights and a tokenizer of the texts."""
    from jkd import random
    from jkd.data import tokens
    from jkd.models import Bert
    from jkd.pretrained import bert

    with table.open() as file:
        words = tokens.train([row["words"] for row in csv.DictReader(file)], 100)
    words.save(tmp_path / "bert" / "tokenizer.json")
    module = Bert(classes=3, vocab=words.size, width=16, depth=2, heads=2, feed_forward=16, positions=12)
    shapes = jax.eval_shape(module.init, random.key("init", 0), jnp.zeros((1, 12), jnp.int32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    bert.save(tmp_path / "bert", variables, module, {0: "sky", 1: "food", 2: "sport"})
    return tmp_path / "bert"


def test_a_teacher_reads_the_words_that_replacement_put_in(table: Path, folder: Path):
    students = {"replaces": {"objective": {"kd": 1.0, "hidden": 0.1}, "train": {"augment": {"replace": 0.9}}}}
    config = configs.resolve(_config(table, students, teacher__init=str(folder), data__buckets=()))
    session = open_session(config)
    parts.check(session)
    student = config.students.replaces
    goal = session.objective_of(student, 2, "students.replaces")
    program = session.program(student, goal, session.apply_of(config.teacher), 100, "students.replaces").program
    assert program.teacher_inputs is None  # what it is fed is the batch after augmentation
    inputs = session.inputs_of(student)
    assert inputs is not session.inputs_of(config.teacher)
    special = set(inputs.tokenizer.reserved)
    assert inputs.neighbours is not None and not special & set(np.unique(inputs.neighbours).tolist())


def test_a_finished_classifier_keeps_its_classes(table: Path, folder: Path):
    """Its logits stand in the order of its own names, sky, food, sport; the data's order is that of the alphabet."""
    config = _config(table, {"kd": {"objective": {"kd": 1.0}}}, teacher__weights=str(folder), graph__diagnosis="none")
    given = open_session(configs.resolve(config)).loaded_teacher
    assert given is not None
    from jkd import random
    from jkd.pretrained import bert

    there = bert.load(folder, bert.module_of(folder, 3), random.key("init", 0)).variables["params"]["classifier"]
    ours = given.variables["params"]["classifier"]
    np.testing.assert_array_equal(ours["bias"], np.asarray(there["bias"])[[1, 0, 2]])
    np.testing.assert_array_equal(ours["kernel"], np.asarray(there["kernel"])[:, [1, 0, 2]])


def test_words_and_weights_that_do_not_belong_together_are_refused(table: Path, folder: Path):
    students = {"kd": {"objective": {"kd": 1.0, "hidden": 0.1}}}
    larger = folder / "larger" / "tokenizer.json"
    from jkd.data import tokens

    known = tokens.load(folder)
    names = known.strings(range(known.size))
    tokens.from_vocabulary([*names, "comet"]).save(larger)
    turned = folder / "turned" / "tokenizer.json"
    tokens.from_vocabulary(names[::-1]).save(turned)
    fewer = folder / "fewer" / "tokenizer.json"
    tokens.from_vocabulary(names[:-3]).save(fewer)

    def refused(message: str, **changes: Any) -> None:
        config = configs.resolve(_config(table, students, teacher__init=str(folder), **changes))
        with pytest.raises(UserError, match=message):
            parts.check(open_session(config))

    refused(f"teacher.tokenizer: it has {known.size + 1} words, but", teacher__tokenizer=str(larger))
    refused("teacher.tokenizer: it fills texts up with word", teacher__tokenizer=str(turned))
    refused(r"objective\.hidden: it compares tokens one by one", student__tokenizer=str(fewer))
    students["kd"]["objective"] = {"kd": 1.0}
    cut = {"student__init": "teacher", "student__attention_heads": 1}
    refused("students.kd: cut out of the teacher: init: 1 of", student__tokenizer=str(larger), **cut)
    refused(r"students\.kd: cut out of the teacher: width: 32 cannot be cut out of 16", student__width=32, **cut)
    config = _config(table, students, teacher__init=str(folder), student__tokenizer=str(fewer), **cut)
    session = open_session(configs.resolve(config))  # a vocabulary that is smaller is cut out, too
    parts.check(session)
    assert session.kept_words(session.config.students.kd) == list(range(known.size - 3))


def test_new_texts_are_answered_a_line_each(done: tuple[Path, dict[str, Any]], table: Path, tmp_path: Path):
    session = open_session(configs.resolve(_config(table, {"kd": {"objective": {"kd": 1.0}}})))
    test = session.dataset.test
    lines = [text for text in test.texts(np.arange(len(test))) if len(text) < 400][:4]  # type: ignore[attr-defined]
    (tmp_path / "new.txt").write_text("\n".join([*lines, "", "soup \x1b[31m bread"]))
    told = list(predict(done[0], "lexical/0", tmp_path / "new.txt", neighbours=2))
    assert [each["input"] for each in told] == [f"new.txt/{line}" for line in (1, 2, 3, 4, 6, 5)]
    assert told[-1]["error"] == "is empty"
    stored = files.read_arrays(done[0] / "replicates/0/students/lexical/0/predictions.safetensors")["logits"]
    place = {text: row for row, text in enumerate(test.texts(np.arange(len(test))))}  # type: ignore[attr-defined]
    for text, each in zip(lines, told, strict=False):
        (answer,) = each["answers"]
        assert answer["class"] == test.classes[stored[place[text]].argmax()] and len(answer["neighbours"]) == 2


def test_cards_show_texts_and_a_hostile_one_does_no_harm(done: tuple[Path, dict[str, Any]]):
    page = (done[0] / "report" / "index.html").read_text()
    assert "<blockquote" in page and any(word in page for word in ("ball", "soup", "star"))
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    assert "star " * 200 not in page


def test_receipts_count_tables_apart_and_latency_by_length(done: tuple[Path, dict[str, Any]]):
    receipt = done[1]["receipt"]["tokens"]
    assert 0 < receipt["embedding"] < receipt["params"]
    assert set(receipt["latency_ms_by_length"]) == {"8", "12"}


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_same_bits_on_one_device_and_on_more(table: Path, tmp_path: Path, devices: int):
    students = {"kd": {"objective": {"kd": 1.0, "attention": 0.1}, "dropout": 0.1}}
    lengths = {"data__buckets": (12,)} if devices == 2 else {}  # one program instead of one a length
    made = []
    for count in (1, devices):
        config = _config(table, students, reduction="elastic", shards=devices, devices=count, **lengths)
        run.distill(config, tmp_path / str(count), quiet=True)
        made.append(_params(tmp_path / str(count)))
    assert made[0] == made[1] and len(made[0]) == 3


@pytest.mark.long
def test_stopped_and_started_again_it_has_the_record_of_an_unbroken_run(table: Path, tmp_path: Path):
    students = {"kd": {"objective": {"kd": 1.0}, "model": "fasttext", "width": 8, "rows": 64, "hidden": 0}}
    config = configs.resolve(_config(table, students, data__buckets=(4, 5, 6, 7, 8), student__train__batch=4))
    run.distill(config, tmp_path / "whole", quiet=True)
    session = open_session(config)
    split = make_split(session.dataset, config.data, 0)
    place = parts.Place(tmp_path / "whole", 0)
    teacher = found_teacher(session, split, place)
    assert teacher is not None
    training, _ = student_training(session, split, teacher, store.load(place.graph), "kd", 0, 0)
    lengths = [chunk["input"].shape[-1] for chunk in training.setup.batches(0)]
    assert len(set(lengths)) > 1 and lengths[0] != lengths[6]  # else this would show nothing
    setup = replace(training.setup, folder=tmp_path / "cut", inputs="these")
    fit(setup, training.init(), stop_at=6)
    fit(setup, training.init())
    whole = record.read(tmp_path / "whole/replicates/0/students/kd/0")
    cut = record.read(tmp_path / "cut")
    np.testing.assert_array_equal(cut.rows, whole.rows)
    assert cut.lines == whole.lines and cut.leaves == whole.leaves


def test_a_student_cut_out_of_its_teacher_starts_there(table: Path):
    config = configs.resolve(_config(table, {"cut": {"objective": {"kd": 1.0}, "init": "teacher"}}))
    from jkd import networks, random

    session = open_session(config)
    old, new = session.module(config.teacher), session.module(config.students.cut)
    inputs = session.inputs_of(config.teacher)
    assert session.inputs_of(config.students.cut) is inputs
    one, two = (module.init(random.key("init", 0), jnp.asarray(inputs.example(1))) for module in (old, new))
    start = networks.start_of(config.students.cut, new, (old, one))
    assert start is not None
    words = np.asarray(start(lambda: two, None)["params"]["word"]["embedding"])
    columns = {tuple(column) for column in np.asarray(one["params"]["word"]["embedding"]).T}
    assert all(tuple(column) in columns for column in words.T)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student__model": "mlp"}, "does not read texts"),
        ({"student__train__augment__flip": True}, "flip: True, but the data are texts"),
        ({"graph__views": ("input",)}, "'input' is made of images"),
        ({"data__mean": (0.3,)}, r"data\.mean: \[0\.3\], but the data are texts"),
        ({"data__text": "wordz"}, "wordz"),
        ({"student__init": "nowhere"}, "nowhere"),
        ({"student__tokenizer": "nowhere.json"}, "nowhere.json"),
        ({"teacher__train__augment__replace": 0.1}, "teacher.init"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    table: Path, tmp_path: Path, changes: dict[str, Any], message: str
):
    config = _config(table, {"kd": {"objective": {"kd": 1.0}}}, **changes)
    with pytest.raises(UserError, match=message):
        run.distill(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "replicates").exists()


def test_a_term_over_layers_says_which_it_cannot_pair(table: Path):
    config = configs.resolve(_config(table, {"kd": {"objective": {"hidden": {"weight": 1.0, "layers": "0-7"}}}}))
    session = open_session(config)
    with pytest.raises(UserError, match=r"students\.kd\.objective\.hidden\.layers"):
        session.objective_of(config.students.kd, 2, "students.kd")
