"""The list of methods can be trusted: each line resolves, and its options are the function's."""

import importlib
import inspect

import pytest

from jkd.methods import METHODS

OBJECTIVE_OPTIONS = {"detach"}  # for the objective, not for the function
INPUTS = {
    *("student_logits", "teacher_logits", "label_target", "labelled", "joined", "mix"),
    *("student_feature", "teacher_feature", "student_projection", "teacher_projection", "mask"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_listed_function_takes_exactly_its_listed_options_and_known_inputs(name: str) -> None:
    module, _, function = METHODS[name].function.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
    options = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    assert options == set(METHODS[name].options) - OBJECTIVE_OPTIONS
    assert {parameter.name for parameter in parameters} - options <= INPUTS


@pytest.mark.parametrize("name", METHODS)
def test_tap_methods_are_those_that_take_features(name: str) -> None:
    module, _, function = METHODS[name].function.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert METHODS[name].taps == ("student_feature" in parameters)
