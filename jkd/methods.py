"""The objective terms a config can name: one line each. Imports no jax, so a config is checked in a blink.

The function's own argument names say what it gets (see `jkd.terms.INPUTS`); `options` are the keyword arguments a
config may set, with their defaults. To add a method: write the function in `jkd/losses/`, add its line here, a test, a
config.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Method:
    """An objective term: where its function is, what may be set, and the paper it is from.

    Attributes:
      function: `module:name` of a pure function of arrays that returns a scalar.
      options: keyword arguments with their defaults.
      taps: whether it compares taps, and so takes `student_tap`, `teacher_tap` and `layers` too. A function of
        `student_features` takes several taps at once, as in `stage1,stage2`.
      tap: the default of both; `*` stands for each layer that `layers` picks.
      maps: whether the taps must have positions, `[B, H, W, C]` or `[B, L, C]`.
      regress: whether the student's tap is first mapped to the teacher's width by a learned linear map.
      tokens: whether it compares the tokens of texts.
      objects: whether it reads the heads or boxes of a detector.
      own: `module:function (key, shapes of the student's taps, of the teacher's) -> parameters` that it gets as
        `context`.
      edges: what it takes from the graph: `beliefs` (joined ones, so a student needs edges), `features` (the feature
        join, which without edges gathers nothing), or nothing.
      distance: whether it is 0 where student and teacher agree; not where its target is another.
      paper: what to cite.
    """

    function: str
    options: dict[str, Any] = field(default_factory=dict)
    taps: bool = False
    tap: str = "embedding"
    maps: bool = False
    regress: bool = False
    tokens: bool = False
    objects: bool = False
    own: str = ""
    edges: str = ""
    distance: bool = True
    paper: str = ""


# Options of terms that train on boxes; see `jkd.losses.yolo.yolo_loss`.
BOXES: dict[str, Any] = {
    "overlap": "ciou",
    "ignore": 0.5,
    "extra": 0.213,
    "smoothing": 0.0,
    "box_weight": 5.0,
    "objectness_weight": 1.0,
    "class_weight": 1.0,
}

METHODS: dict[str, Method] = {
    "cross_entropy": Method(
        "jkd.losses.logits:cross_entropy", {"smoothing": 0.0}, distance=False, paper="the labels, where known"
    ),
    "kd": Method("jkd.losses.logits:kd", {"temperature": 4.0}, paper="Hinton et al. 2015, arXiv 1503.02531"),
    "label_smoothing": Method(
        "jkd.losses.logits:smoothed_kd",
        {"smoothing": "auto"},
        distance=False,
        paper="KD to the teacher's target smoothed; Szegedy 2016",
    ),
    "joined_beliefs": Method(
        "jkd.losses.logits:joined_beliefs",
        edges="beliefs",
        distance=False,
        paper="jkd: KL to (1-m) teacher + m joined beliefs",
    ),
    "projection": Method(
        "jkd.losses.contrastive:info_nce",
        {"temperature": 0.1, "detach": True},
        edges="features",
        distance=False,
        paper="van den Oord 2018, arXiv 1807.03748; Tian 2020, arXiv 1910.10699",
    ),
    "relation_matching": Method(
        "jkd.losses.relations:relation_matching",
        {"temperature": 0.1},
        edges="features",
        paper="jkd: KL of in-batch relation rows",
    ),
    "fitnet": Method("jkd.losses.features:fitnet", taps=True, regress=True, paper="Romero 2015, arXiv 1412.6550"),
    "rkd": Method(
        "jkd.losses.relations:rkd",
        {"distance_weight": 25.0, "angle_weight": 50.0},
        taps=True,
        paper="Park et al. 2019, arXiv 1904.05068",
    ),
    "hidden": Method(
        "jkd.losses.text:hidden_mse",
        taps=True,
        tokens=True,
        tap="layer*/hidden",
        regress=True,
        paper="TinyBERT; Jiao et al. 2020, arXiv 1909.10351",
    ),
    "embedding_layer": Method(
        "jkd.losses.text:hidden_mse",
        taps=True,
        tokens=True,
        tap="embeddings",
        regress=True,
        paper="TinyBERT; Jiao et al. 2020, arXiv 1909.10351",
    ),
    "attention": Method(
        "jkd.losses.text:attention_mse",
        {"softmax": False},
        taps=True,
        tokens=True,
        tap="layer*/scores",
        paper="TinyBERT; Jiao et al. 2020, arXiv 1909.10351",
    ),
    "attention_kl": Method(
        "jkd.losses.text:attention_kl",
        {"scores": True},
        taps=True,
        tokens=True,
        tap="layer*/scores",
        paper="MiniLM; Wang et al. 2020, arXiv 2002.10957",
    ),
    "query_relations": Method(
        "jkd.losses.text:relation_kl",
        {"heads": 0},
        taps=True,
        tokens=True,
        tap="layer*/query",
        paper="MiniLMv2; Wang et al. 2021, arXiv 2012.15828",
    ),
    "key_relations": Method(
        "jkd.losses.text:relation_kl",
        {"heads": 0},
        taps=True,
        tokens=True,
        tap="layer*/key",
        paper="MiniLMv2; Wang et al. 2021, arXiv 2012.15828",
    ),
    "value_relations": Method(
        "jkd.losses.text:relation_kl",
        {"heads": 0},
        taps=True,
        tokens=True,
        tap="layer*/value",
        paper="MiniLMv2; Wang et al. 2021, arXiv 2012.15828",
    ),
    "yolo": Method(
        "jkd.losses.yolo:detection",
        BOXES,
        objects=True,
        distance=False,
        paper="true boxes; Redmon & Farhadi 2018, arXiv 1804.02767; Bochkovskiy et al. 2020, arXiv 2004.10934",
    ),
    "objectness_scaled": Method(
        "jkd.losses.detection:objectness_scaled",
        {"window": 3, "objectness_weight": 1.0, "box_weight": 1.0, "class_weight": 1.0},
        taps=True,
        objects=True,
        tap="head*",
        paper="with FM-NMS; Mehta & Ozturk 2018, arXiv 1805.06361",
    ),
    "class_kd": Method(
        "jkd.losses.detection:class_kd",
        {"temperature": 2.0, "threshold": 0.5},
        taps=True,
        objects=True,
        tap="head*",
        paper="KD on each class's sigmoid; Hinton et al. 2015, arXiv 1503.02531",
    ),
    "localization_kd": Method(
        "jkd.losses.detection:yolo_localization_kd",
        {"temperature": 1.0},
        taps=True,
        objects=True,
        tap="head*",
        paper="LD, a bounded form for anchors; Zheng et al. 2022, arXiv 2102.12252",
    ),
    "confident_hint": Method(
        "jkd.losses.detection:confident",
        taps=True,
        objects=True,
        tap="neck*",
        regress=True,
        paper="hint on necks, weighted by the teacher's confidence; Chen et al. 2017",
    ),
    "fgd": Method(
        "jkd.losses.fgd:focal_global",
        {
            "foreground": 1e-3,
            "background": 5e-4,
            "attention": 1e-3,
            "relation": 5e-6,
            "temperature": 0.5,
        },
        taps=True,
        objects=True,
        tap="neck*",
        regress=True,
        own="jkd.losses.fgd:init_fgd",
        paper="Yang et al. 2022, arXiv 2111.11837",
    ),
    "pseudo_labels": Method(
        "jkd.losses.yolo:pseudo_labels",
        BOXES,
        objects=True,
        distance=False,
        paper="the teacher's boxes where there are no true ones; Lee 2013",
    ),
    "sp": Method("jkd.losses.relations:sp", taps=True, paper="Tung & Mori 2019, arXiv 1907.09682"),
    "pkt": Method("jkd.losses.relations:pkt", taps=True, paper="Passalis & Tefas 2018, arXiv 1803.10837"),
    "cckd": Method(
        "jkd.losses.relations:cckd", {"gamma": 0.4, "order": 2}, taps=True, paper="Peng et al. 2019, arXiv 1904.01802"
    ),
    "gkd": Method("jkd.losses.relations:gkd", taps=True, paper="Lassance et al. 2020, arXiv 1911.03080"),
    "batch_order_cc": Method(
        "jkd.losses.relations:batch_order_cc", taps=True, regress=True, paper="the CC of published tables; see cckd"
    ),
    "irg_transformation": Method(
        "jkd.losses.stages:irg_transformation", taps=True, maps=True, tap="stage3,stage4", paper="Liu et al. 2019, CVPR"
    ),
    "fsp": Method("jkd.losses.stages:fsp", taps=True, maps=True, tap="stage3,stage4", paper="Yim et al. 2017, CVPR"),
    "review": Method(
        "jkd.losses.stages:review",
        taps=True,
        maps=True,
        tap="stage1,stage2,stage3,stage4",
        own="jkd.losses.stages:init_review",
        distance=False,
        paper="ReviewKD; Chen et al. 2021, arXiv 2104.09044",
    ),
    "vid": Method(
        "jkd.losses.features:vid",
        taps=True,
        own="jkd.losses.features:init_vid",
        distance=False,
        paper="Ahn et al. 2019, arXiv 1904.05835",
    ),
    "crd": Method(
        "jkd.losses.contrastive:crd",
        {"temperature": 0.07},
        taps=True,
        own="jkd.losses.contrastive:init_crd",
        distance=False,
        paper="negatives from the batch; Tian et al. 2020, arXiv 1910.10699",
    ),
    "hkd": Method(
        "jkd.losses.contrastive:hkd",
        {"temperature": 0.07, "k": 8, "share": 0.25},
        taps=True,
        own="jkd.losses.contrastive:init_hkd",
        distance=False,
        paper="negatives from the batch; Zhou et al. 2021, arXiv 2108.05507",
    ),
    "activation_boundary": Method(
        "jkd.losses.activations:activation_boundary",
        {"margin": 1.0},
        taps=True,
        maps=True,
        tap="preact4",
        regress=True,
        distance=False,
        paper="AB; Heo et al. 2019, arXiv 1811.03233",
    ),
    "overhaul": Method(
        "jkd.losses.activations:overhaul",
        taps=True,
        maps=True,
        tap="preact4",
        regress=True,
        paper="OFD; Heo et al. 2019, arXiv 1904.01866",
    ),
    "factor_transfer": Method(
        "jkd.losses.maps:factor_transfer",
        {"power": 2},
        taps=True,
        maps=True,
        paper="FT, without its networks; Kim et al. 2018, arXiv 1802.04977",
    ),
    "nkd": Method(
        "jkd.losses.soft_targets:nkd",
        {"gamma": 1.5, "temperature": 1.0},
        distance=False,
        paper="Yang et al. 2023, arXiv 2303.13005",
    ),
    "transformed_teacher": Method(
        "jkd.losses.soft_targets:transformed_teacher",
        {"temperature": 4.0, "weighted": False},
        distance=False,
        paper="TTM, and weighted WTTM; Zheng & Yang 2024, arXiv 2402.11148",
    ),
    "multi_level": Method(
        "jkd.losses.soft_targets:multi_level",
        {"temperature": 4.0, "instance_weight": 1.0, "batch_weight": 1.0, "class_weight": 1.0},
        paper="Jin et al. 2023, CVPR",
    ),
    "logit_mse": Method("jkd.losses.soft_targets:logit_mse", paper="Ba & Caruana 2014, arXiv 1312.6184"),
    "irg_edge": Method("jkd.losses.relations:irg_edge", taps=True, paper="Liu et al. 2019, CVPR"),
    "dkd": Method(
        "jkd.losses.soft_targets:dkd",
        {"alpha": 1.0, "beta": 8.0, "temperature": 4.0},
        paper="Zhao et al. 2022, arXiv 2203.08679",
    ),
    "dist": Method(
        "jkd.losses.soft_targets:dist",
        {"inter_weight": 1.0, "intra_weight": 1.0, "temperature": 4.0},
        paper="Huang et al. 2022, arXiv 2205.10536",
    ),
    "logit_standardization": Method(
        "jkd.losses.soft_targets:logit_standardization", {"temperature": 2.0}, paper="Sun et al. 2024, arXiv 2403.01427"
    ),
    "wsld": Method(
        "jkd.losses.soft_targets:wsld", {"temperature": 2.0}, distance=False, paper="Zhou et al. 2021, arXiv 2102.00650"
    ),
    "attention_transfer": Method(
        "jkd.losses.maps:attention_transfer",
        {"power": 2},
        taps=True,
        maps=True,
        paper="Zagoruyko & Komodakis 2017, arXiv 1612.03928",
    ),
    "nst": Method("jkd.losses.maps:nst", taps=True, maps=True, paper="Huang & Wang 2017, arXiv 1707.01219"),
    "cwd": Method(
        "jkd.losses.maps:cwd",
        {"temperature": 1.0},
        taps=True,
        maps=True,
        regress=True,
        paper="Shu et al. 2021, arXiv 2011.13256",
    ),
    "ickd": Method("jkd.losses.maps:ickd", taps=True, maps=True, regress=True, paper="Liu et al. 2021, ICCV"),
    "pkd": Method("jkd.losses.maps:pkd", taps=True, regress=True, paper="Cao et al. 2022, arXiv 2207.02039"),
}

# Every term also takes these: the weight multiplies the loss, the schedule multiplies the weight over the run.
COMMON: dict[str, Any] = {"weight": 1.0, "schedule": "constant", "warmup": 0.0}
SCHEDULES = ("constant", "linear", "cosine")
# How taps with a `*` are paired: uniform, skip, last (see `jkd.layer_map`), final (the last with the last), or pairs
# counted from 0, as in "0-1,1-3,2-5": student's layer, teacher's layer.
LAYERS = ("uniform", "skip", "last", "final")


def documented(name: str) -> str:
    """What a term's function says of itself, read from its source: its module would import jax."""
    module, _, function = METHODS[name].function.partition(":")
    source = Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")
    found = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == function)
    return ast.get_docstring(next(found)) or ""


def options(name: str) -> dict[str, Any]:
    """All keys that a config may set for a term, with their defaults."""
    method = METHODS[name]
    taps = {"student_tap": method.tap, "teacher_tap": method.tap, "layers": "uniform"} if method.taps else {}
    return COMMON | method.options | taps
