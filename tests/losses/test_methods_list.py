"""The list of methods can be trusted: each line resolves, and its options are the function's."""

import importlib
import inspect

import pytest

from jkd.losses.fgd import fgd
from jkd.losses.yolo import yolo_loss
from jkd.methods import METHODS, documented
from jkd.terms import INPUTS

WITHIN = {"jkd.losses.yolo": yolo_loss, "jkd.losses.fgd": fgd}  # what a term of the module is made of
OBJECTIVE_OPTIONS = {"detach"}  # for the objective, not for the function


@pytest.mark.parametrize("name", METHODS)
def test_a_listed_function_takes_exactly_its_listed_options_and_known_inputs(name: str) -> None:
    module, _, function = METHODS[name].function.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
    forwards = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if forwards:
        parameters = [*parameters, *inspect.signature(WITHIN[module]).parameters.values()]
        parameters = [it for it in parameters if it.kind is it.KEYWORD_ONLY or it.name in INPUTS]
    options = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    listed = set(METHODS[name].options) - OBJECTIVE_OPTIONS
    assert listed <= options if forwards else listed == options
    assert {parameter.name for parameter in parameters} - options <= INPUTS


@pytest.mark.parametrize("name", METHODS)
def test_what_is_printed_of_a_method_is_its_functions_docstring(name: str) -> None:
    module, _, function = METHODS[name].function.partition(":")
    found = inspect.getdoc(getattr(importlib.import_module(module), function))
    assert documented(name) == found and len(documented(name)) > 40


@pytest.mark.parametrize("name", METHODS)
def test_tap_methods_are_those_that_take_features(name: str) -> None:
    module, _, function = METHODS[name].function.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert METHODS[name].taps == bool({"student_feature", "student_features"} & set(parameters))
    assert bool(METHODS[name].own) == ("context" in parameters)
