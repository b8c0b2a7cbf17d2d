"""optax optimisers and schedules by name."""

import optax
from ml_collections import ConfigDict


def make_schedule(optimizer: ConfigDict, steps: int) -> optax.Schedule:
    """The learning rate over `steps` steps: an optional linear rise, then constant, cosine, linear or step decay."""
    rate, rise = optimizer.learning_rate, round(optimizer.warmup * steps)
    rest = max(steps - rise, 1)
    if optimizer.schedule == "cosine":
        after = optax.cosine_decay_schedule(rate, rest)
    elif optimizer.schedule == "linear":
        after = optax.linear_schedule(rate, 0.0, rest)
    elif optimizer.schedule == "step":
        bounds = {max(round(share * steps) - rise, 0): optimizer.factor for share in optimizer.boundaries}
        after = optax.piecewise_constant_schedule(rate, bounds)
    else:
        after = optax.constant_schedule(rate)
    return optax.join_schedules([optax.linear_schedule(0.0, rate, rise), after], [rise]) if rise else after


def make_optimizer(optimizer: ConfigDict, steps: int) -> optax.GradientTransformation:
    """The optimiser of `train.optimizer`. Weight decay is decoupled for adamw, lamb, lion; an L2 term otherwise."""
    rate = make_schedule(optimizer, steps)
    decay = optimizer.weight_decay
    match optimizer.name:
        case "adamw":
            made = optax.adamw(rate, weight_decay=decay)
        case "lamb":
            made = optax.lamb(rate, weight_decay=decay)
        case "lion":
            made = optax.lion(rate, weight_decay=decay)
        case "sgd":
            made = optax.sgd(rate, momentum=optimizer.momentum or None, nesterov=optimizer.nesterov)
        case "rmsprop":
            made = optax.rmsprop(rate)
        case _:
            made = optax.adam(rate)
    before = [optax.clip_by_global_norm(optimizer.clip)] if optimizer.clip else []
    if decay and optimizer.name in ("sgd", "adam", "rmsprop"):
        before.append(optax.add_decayed_weights(decay))
    return optax.chain(*before, made)
