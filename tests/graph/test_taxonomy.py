"""Concepts above the classes."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from jkd.data.textset import load
from jkd.errors import UserError
from jkd.graph import taxonomy


def written(folder: Path, **content: Any) -> Path:
    path = folder / "taxonomy.json"
    path.write_text(json.dumps(content))
    return path


def test_names_match_without_regard_to_case_and_missing_ones_are_listed(tmp_path: Path) -> None:
    path = written(tmp_path, classes=["Cat", "ship"], concepts=["animal"], is_a={"Cat": "animal"})
    found = taxonomy.load(path, ("dog", "cat"))
    assert found.concepts == ("animal",)
    assert found.is_a.tolist() == [[1, 2]]
    assert found.missing == ("dog",)


def test_concepts_have_parents_and_children_may_have_several(tmp_path: Path) -> None:
    is_a = {"cat": ["pet", "animal"], "pet": "thing", "animal": "thing"}
    path = written(tmp_path, classes=["cat"], concepts=["animal", "pet", "thing"], is_a=is_a)
    assert taxonomy.load(path, ("cat",)).is_a.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]


def test_a_name_that_is_class_and_concept_is_the_class_as_a_child(tmp_path: Path) -> None:
    path = written(tmp_path, classes=["person"], concepts=["person"], is_a={"person": "person"})
    assert taxonomy.load(path, ("person",)).is_a.tolist() == [[0, 1]]
    assert taxonomy.load(path, ("dog",)).is_a.tolist() == []  # the file's class, which this data set has not


@pytest.mark.parametrize("name", ["bccd", "cifar10", "cifar100", "coco", "sst2", "trec", "voc"])
def test_shipped_taxonomies_place_every_class(shared: Path, name: str) -> None:
    path = shared / "data" / "taxonomies" / f"{name}.json"
    content = json.loads(path.read_text())
    found = taxonomy.load(path, content["classes"])
    assert not found.missing
    assert len(found.is_a) == len(content["is_a"])
    assert found.concepts == tuple(content["concepts"])


@pytest.mark.fault(25)
def test_refuses_what_is_not_of_the_form(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'is_a' is not"):
        taxonomy.load(written(tmp_path, classes=[], concepts=[]), ())
    with pytest.raises(UserError, match=r"'anmal' is not one of its concepts\. Did you mean 'animal'"):
        taxonomy.load(written(tmp_path, classes=["cat"], concepts=["animal"], is_a={"cat": "anmal"}), ("cat",))
    with pytest.raises(UserError, match=r"'cta' is neither a class nor a concept of it\. Did you mean 'cat'"):
        taxonomy.load(written(tmp_path, classes=["cat"], concepts=["animal"], is_a={"cta": "animal"}), ("cat",))
    with pytest.raises(UserError, match="concepts: a name comes up twice"):
        taxonomy.load(written(tmp_path, classes=[], concepts=["a", "A"], is_a={}), ())
    with pytest.raises(UserError, match="is missing"):
        taxonomy.load(tmp_path / "nowhere.json", ())


@pytest.mark.fault(25)
def test_a_long_chain_of_concepts_is_followed_link_by_link_once(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(40_000)]
    is_a = dict(itertools.pairwise(names)) | {"cat": "c0"}
    begun = time.monotonic()
    found = taxonomy.load(written(tmp_path, classes=["cat"], concepts=names, is_a=is_a), ("cat",))
    assert len(found.is_a) == 40_000 and taxonomy.on_a_cycle(found.is_a) is None
    path = written(tmp_path, classes=["cat"], concepts=names, is_a=is_a | {"c39999": "c39998"})
    with pytest.raises(UserError, match="there is a cycle through 'c39998'"):
        taxonomy.load(path, ("cat",))
    assert time.monotonic() - begun < 30


@pytest.mark.fault(25)
def test_names_of_great_length_are_not_compared(tmp_path: Path) -> None:
    long = "".join(chr(0x4E00 + number % 200) for number in range(400_000))
    path = written(tmp_path, classes=[], concepts=[long], is_a={"x": long[1:] + "x"})
    begun = time.monotonic()
    with pytest.raises(UserError, match="is not one of its concepts"):
        taxonomy.load(path, ("cat",))
    assert time.monotonic() - begun < 10


def test_the_taxonomy_of_trec_comes_with_the_package() -> None:
    train, _, _ = load({"source": "trec:fine", "limit": 10})
    found = taxonomy.load("trec", train.classes)
    assert not found.missing and len(found.is_a) == 50 and len(found.concepts) == 6
    above = {train.classes[child]: found.concepts[parent - 50] for child, parent in found.is_a.tolist()}
    assert all(name.split(":")[0] == parent for name, parent in above.items())
    assert taxonomy.located("trec").is_file() and taxonomy.located("a/b.json") == Path("a/b.json")
