"""From config to objects: what is shared, so that it compiles once, and what must not be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jkd import build, objective, xla
from jkd import config as configs
from jkd.build import Session, steps_of
from jkd.errors import UserError


@pytest.fixture(scope="module")
def session(tiny: Any) -> Session:
    config = tiny.config()
    kd = {"cross_entropy": 0.1, "kd": 0.9}
    config.students = {
        "kd": {"objective": kd},
        "same": {"objective": kd, "sampling": {"budget": 30}},
        "hotter": {"objective": {"cross_entropy": 0.1, "kd": {"weight": 0.9, "temperature": 8.0}}},
        "wider": {"objective": kd, "width": 17},
        "faster": {"objective": kd, "train": {"optimizer": {"learning_rate": 0.02}}},
        "joined": {"objective": {"joined_beliefs": 1.0}, "graph": {"edges": "real"}},
        "random": {"objective": {"joined_beliefs": 1.0}, "graph": {"edges": "random", "gate": False}},
    }
    return build.open_session(configs.resolve(config))


def _program(session: Session, name: str, samples: int = 200) -> Any:
    network = session.config.students[name]
    teacher = session.apply_of(session.config.teacher)
    return session.program(network, objective.make_objective(network, 2), teacher, samples, f"students.{name}")


def test_students_that_differ_only_in_graph_or_sampling_share_a_program(session: Session):
    assert _program(session, "kd") is _program(session, "same") is _program(session, "kd", samples=40)
    assert _program(session, "joined") is _program(session, "random")


@pytest.mark.parametrize("other", ["hotter", "wider", "faster", "joined"])
def test_students_that_differ_in_the_step_do_not(session: Session, other: str):
    assert _program(session, "kd") is not _program(session, other)


def test_equal_networks_share_their_forward_pass(session: Session):
    students = session.config.students
    assert (
        session.apply_of(students.kd) is session.apply_of(students.faster) is session.apply_of(session.config.teacher)
    )
    assert session.apply_of(students.kd) is not session.apply_of(students.wider)
    one, other = (session.predictor(session.apply_of(it), it) for it in (students.kd, students.joined))
    assert one is other


def test_programs_are_let_go_only_for_a_new_one_and_only_where_the_system_wants_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    first, joined = _program(session, "kd"), _program(session, "joined")
    monkeypatch.setattr(xla, "crowded", lambda: True)
    assert _program(session, "kd") is first and _program(session, "joined") is joined
    hottest = configs.as_dict(session.config.students["hotter"])
    hottest["objective"]["kd"]["temperature"] = 9.0
    with session.config.unlocked():
        session.config.students["hottest"] = ConfigDict(hottest)
    _program(session, "hottest")
    assert _program(session, "kd") is not first
    monkeypatch.setattr(xla, "crowded", lambda: False)
    assert _program(session, "joined") is not joined
    assert _program(session, "joined") is _program(session, "random")


def test_a_teacher_of_another_function_is_another_program(session: Session):
    network = session.config.students.kd
    goal = objective.make_objective(network, 2)
    first = _program(session, "kd")
    assert session.program(network, goal, lambda variables, images: (images, {}), 200, "students.kd") is not first


def test_steps_are_given_or_epochs_rounded_up(session: Session):
    network = session.config.students.kd.copy_and_resolve_references().unlock()
    assert steps_of(network, 7) == 40
    network.train.update(steps=0, epochs=3, batch=16)
    assert [steps_of(network, samples) for samples in (16, 17, 1)] == [3, 4, 1]


def test_a_seed_is_traced_and_changes_the_start(session: Session, compilations: Any):
    compiled = _program(session, "wider")
    teacher = session.module(session.config.teacher).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    one = compiled.init(build.run_of(0, 0), teacher)
    with compilations() as names:
        again, other = (compiled.init(build.run_of(*run), teacher) for run in ((0, 0), (0, 1)))
    assert not names
    kernels = [np.asarray(state.params["classifier"]["kernel"]) for state in (one, again, other)]
    assert np.array_equal(kernels[0], kernels[1]) and not np.array_equal(kernels[0], kernels[2])


def test_a_prediction_does_not_depend_on_how_many_are_asked_for(session: Session):
    network = session.config.students.kd
    variables = session.module(network).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    predictor, source = session.predictor(session.apply_of(network), network), session.dataset.train
    found = predictor(variables, source, np.arange(30))
    many, features = found["logits"], found["embedding"]
    few = predictor(variables, source, np.asarray([3, 29]))["logits"]
    assert many.shape == (30, 10) and features.shape == (30, 16)
    assert np.array_equal(many[[3, 29]], few)


def test_mean_and_channels_must_agree(tiny: Any):
    config = tiny.config(data__mean=(0.1, 0.2, 0.3), data__std=(1.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"data\.mean"):
        build.open_session(configs.resolve(config))
