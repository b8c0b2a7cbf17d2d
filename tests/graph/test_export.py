"""Exports that other tools load, whatever the names are."""

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest

from jkd.errors import UserError
from jkd.graph import KnowledgeGraph, export, to_graphml, to_json, to_networkx
from jkd.graph.export import escaped

HOSTILE = (
    "<script>alert(1)</script>",
    "line\nbreak\x00\x1b[31m\r\"&']]>",
    "back\\slash \ud800 \u202e ünïcödé",
)


def kinds(made: nx.MultiDiGraph) -> tuple[Counter, Counter]:
    nodes = Counter(kind for _, kind in made.nodes(data="type"))
    edges = Counter(
        f"{data['type']}/{data['view']}" if "view" in data else data["type"] for *_, data in made.edges(data=True)
    )
    return nodes, edges


def test_graphml_and_json_load_with_every_node_and_edge_type(graph: KnowledgeGraph) -> None:
    wanted = graph.counts
    from_xml = nx.read_graphml(io.BytesIO(to_graphml(graph)), force_multigraph=True)
    from_json = nx.node_link_graph(json.loads(to_json(graph)), edges="edges")
    for made in (to_networkx(graph), from_xml, from_json):
        nodes, edges = kinds(made)
        assert nodes == wanted["nodes"]
        assert edges == wanted["edges"]
        assert set(edges) >= {"similar_to/teacher", "predicted_as", "instance_of", "confused_with", "is_a"}


def test_edges_carry_weight_and_rank(graph: KnowledgeGraph) -> None:
    made = to_networkx(graph, lambda index: f"train/{index:04}.png")
    similar = [d for *_, d in made.out_edges("sample:train/0000.png", data=True) if d.get("view") == "input"]
    assert [edge["rank"] for edge in similar] == [0, 1, 2, 3]
    assert [edge["weight"] for edge in similar] == graph.edges("input").weights[0, 0].tolist()
    assert made.nodes["sample:train/0002.png"]["label"] in graph.classes
    assert made.has_edge("class:cat", "concept:animal") and made.has_edge("concept:vehicle", "concept:thing")


@pytest.mark.fault(30)
def test_hostile_names_break_nothing_and_stay_different(make_graph: Callable[..., KnowledgeGraph]) -> None:
    graph = make_graph(names=HOSTILE)
    ids = [f"{index}{HOSTILE[index % 3]}" for index in range(60)]
    xml = to_graphml(graph, ids)
    made = nx.read_graphml(io.BytesIO(xml), force_multigraph=True)
    assert b"<script>" not in xml and b"\x1b" not in xml
    assert (
        set(made)
        == set(to_networkx(graph, ids))
        == set(nx.node_link_graph(json.loads(to_json(graph, ids)), edges="edges"))
    )
    assert len(made) == 60 + 3 + 3


def test_escaping_is_one_to_one_and_leaves_plain_names() -> None:
    names = ["a\nb", "a\\nb", "a\\\nb", "a\\\\nb", "a\x1fb", "a\\x1fb", "naïve 猫"]
    assert len({escaped(name) for name in names}) == len(names)
    assert escaped("naïve 猫") == "naïve 猫" and escaped("a\nb") == "a\\nb"
    assert all(character.isprintable() for name in names for character in escaped(name))


def test_the_same_graph_gives_the_same_bytes(graph: KnowledgeGraph) -> None:
    assert to_graphml(graph) == to_graphml(graph)
    assert to_json(graph) == to_json(graph)


def test_the_ending_picks_the_format(graph: KnowledgeGraph, tmp_path: Path) -> None:
    export(graph, tmp_path / "g.graphml")
    assert len(nx.read_graphml(tmp_path / "g.graphml")) == 66
    with pytest.raises(UserError, match=r"ending in \.graphml or \.json, got 'g\.dot'"):
        export(graph, tmp_path / "g.dot")
    with pytest.raises(UserError, match="expected 60 different sample ids, got 1"):
        export(graph, tmp_path / "g.json", ["same"] * 60)
