import numpy as np
import pytest

from jkd.data import tfds_texts
from jkd.data.textset import load
from jkd.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


class JkdSentences(tfds.core.GeneratorBasedBuilder):
    """Eight sentences, one of them twice, four for validation, and two unlabelled ones, as in `glue/sst2`."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["negative", "positive"]),
            "idx": np.int32,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {
            name: self._generate_examples(name, count) for name, count in (("train", 9), ("validation", 4), ("test", 2))
        }

    def _generate_examples(self, name, count):
        for number in range(count):
            label = -1 if name == "test" else number % 2
            what = 0 if name == "train" and number == 8 else number
            yield number, {"sentence": f"{name} sentence ü {what}", "label": label, "idx": number}


class JkdNews(tfds.core.GeneratorBasedBuilder):
    """Titles and descriptions, as in `ag_news_subset`."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "title": tfds.features.Text(),
            "description": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["World", "Sports"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {name: self._generate_examples(name) for name in ("train", "test")}

    def _generate_examples(self, name):
        for number in range(4):
            yield (
                number,
                {"title": f"title {name} {number}", "description": f"text {name} {number}", "label": number % 2},
            )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (JkdSentences, JkdNews):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


def test_texts_and_labels_belong_together_in_an_order_of_their_digests(data_dir):
    train, test, _ = load({"source": "tfds:jkd_sentences", "path": data_dir, "test": "validation"})
    ids = [train.id(i) for i in range(len(train))]
    assert (len(train), len(test), train.classes) == (9, 4, ("negative", "positive"))
    assert ids == sorted(ids) and len(set(ids)) == 9 and sum(name.endswith("-1") for name in ids) == 1
    for text, label in zip(train.texts(np.arange(9)), train.labels, strict=True):
        assert text.startswith("train sentence ü") and int(text[-1]) % 2 == label
    assert train.counts["repeated"] == 1


def test_an_unlabelled_test_split_is_refused_with_a_hint(data_dir):
    with pytest.raises(UserError, match=r"2 of 2 test samples have no label.*data\.test='validation'"):
        load({"source": "tfds:jkd_sentences", "path": data_dir})


def test_of_several_texts_one_is_usual_or_named(data_dir):
    usual, _, _ = load({"source": "tfds:jkd_news:1.0.0", "path": data_dir})
    named, _, _ = load({"source": "tfds:jkd_news", "path": data_dir, "text": "title"})
    assert usual.texts(np.arange(1))[0].startswith("text") and named.texts(np.arange(1))[0].startswith("title")
    with pytest.raises(UserError, match=r"data\.text: 'body' is not a feature to take \(Text\)\. There are: .*title"):
        load({"source": "tfds:jkd_news", "path": data_dir, "text": "body"})


def test_a_set_of_texts_is_told_from_others(data_dir):
    assert tfds_texts.has_texts("jkd_news", data_dir, "train")


def test_what_is_not_there_is_one_clear_refusal(data_dir):
    with pytest.raises(UserError, match=r"data.source 'tfds:nonesuch'.*data_dir as data.path"):
        load({"source": "tfds:nonesuch", "path": data_dir})
