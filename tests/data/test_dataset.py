import subprocess
import sys

import pytest

from jkd.data import open_dataset
from jkd.errors import UserError


def test_an_unknown_source_is_refused_with_what_there_is(settings):
    with pytest.raises(UserError, match=r"data.source: expected digits, images, npz, .*tfds:NAME, got 'digit'"):
        open_dataset(settings("digit"))


def test_one_split_cannot_train_and_test(settings, tmp_path):
    with pytest.raises(UserError, match=r"data.train and data.test are both 'train'"):
        open_dataset(settings("npz", tmp_path, test="train"))


def test_mean_and_std_are_one_number_or_one_per_channel(settings):
    with pytest.raises(UserError, match=r"data.mean: expected 1 or 1 numbers, one per channel, got 3"):
        open_dataset(settings("digits", mean=(0.5, 0.4, 0.3)))


def test_importing_the_package_and_opening_digits_loads_neither_pillow_nor_tfds():
    code = (
        "import sys, jkd.data; from jkd.config import default; jkd.data.open_dataset(default().data); "
        "print([name for name in ('PIL', 'tensorflow_datasets', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
