"""A graph on disk, `graph.json` and `arrays.safetensors`: equal graphs equal bytes, a flipped bit refused."""

from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from jkd import digest, files, places
from jkd.errors import Damaged, UserError, some
from jkd.graph.diagnosis import Diagnosis
from jkd.graph.knowledge_graph import SCHEMA, KnowledgeGraph
from jkd.graph.material import Material
from jkd.graph.nearest import Edges
from jkd.graph.validate import check as validate
from jkd.places import Path

REMEDY = "Delete the folder and build the graph again, or copy it anew."


def save(graph: KnowledgeGraph, folder: str | Path) -> None:
    """Writes the arrays, then `graph.json` as the sign that all is there; each appears whole or not."""
    folder = places.path_of(folder)
    files.write_arrays(folder / "arrays.safetensors", graph.arrays())
    arrays = digest.of_file(folder / "arrays.safetensors")
    stored = {"sha256": graph.digest, "arrays_sha256": arrays, "manifest": graph.manifest}
    files.write_signed(folder / "graph.json", stored)


def load(folder: str | Path) -> KnowledgeGraph:
    """Reads a graph, verifies every digest and validates it.

    Raises:
      UserError: naming `graph.json`, or the array that is not what it was when the graph was saved.
    """
    folder = places.path_of(folder)
    signed = read_manifest(folder)
    try:
        graph = _made(signed["manifest"], folder / "arrays.safetensors")
        validate(graph)
        if digest.of_file(folder / "arrays.safetensors") != signed["arrays_sha256"]:
            raise Damaged(f"{folder / 'arrays.safetensors'} is not what was saved: its header differs. {REMEDY}")
        if graph.manifest != signed["manifest"]:
            odd = sorted(key for key, value in graph.manifest.items() if signed["manifest"].get(key) != value)
            raise Damaged(f"{folder / 'graph.json'} says of {some(odd)} what its arrays do not. {REMEDY}")
    except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:  # signed, but by no program of ours
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder / 'graph.json'} does not describe a graph ({what}). {REMEDY}") from None
    return graph


def _made(manifest: dict[str, Any], path: Path) -> KnowledgeGraph:
    """The graph of a manifest and the arrays it lists, not yet validated."""
    arrays = _arrays(path, manifest["arrays"])
    material = None
    if manifest["material"]:
        about = manifest["material"]
        tables = {
            view: Edges(arrays[f"material.neighbours.{index}"], arrays[f"material.weights.{index}"])
            for index, view in enumerate(about["views"])
        }
        named = [arrays[f"material.{name}"] for name in ("beliefs", "labels", "trial_of")]
        material = Material(about["by"], about["pool"], named[0], named[1], named[2], tables)
    return KnowledgeGraph(
        classes=tuple(manifest["classes"]),
        concepts=tuple(manifest["concepts"]),
        views=tuple(manifest["views"]),
        sample=arrays["sample"],
        features=arrays["features"],
        beliefs=arrays["beliefs"],
        labels=arrays["labels"],
        similar_to=Edges(arrays["neighbours"], arrays["weights"]),
        predicted_as=Edges(arrays["predicted_as.ids"], arrays["predicted_as.weights"]),
        confused_with=arrays["confused_with"],
        is_a=arrays["is_a"],
        settings=manifest["settings"],
        provenance=manifest["provenance"],
        diagnosis=Diagnosis.from_dict(manifest["diagnosis"]) if manifest["diagnosis"] else None,
        material=material,
        boxes=arrays.get("boxes"),
        relations={
            name: Edges(arrays[f"{name}.ids"], arrays[f"{name}.weights"]) for name in manifest.get("relations", ())
        },
    )


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """`{"sha256", "arrays_sha256", "manifest", "digest"}` of a stored graph, checked; reads no array."""
    path = places.path_of(folder) / "graph.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: there is no finished graph in {folder}. Build it with `jkd graph build`.")
    if places.size(path) > files.JSON:
        raise UserError(f"{path} is larger than {files.JSON} bytes, so it is not a graph's. {REMEDY}")
    signed = files.read_signed(path, REMEDY)
    if set(signed) != {"sha256", "arrays_sha256", "manifest", "digest"}:
        raise Damaged(f"{path} does not hold a graph. {REMEDY}")
    if digest.of_json(signed["manifest"]) != signed["sha256"]:
        raise Damaged(f"{path}: the manifest is not what its SHA-256 says. {REMEDY}")
    if not isinstance(signed["manifest"], dict):
        raise UserError(f"{path} does not describe a graph. {REMEDY}")
    if signed["manifest"].get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {signed['manifest'].get('schema')}, this version reads {SCHEMA}. Build anew.")
    return signed


def _arrays(path: Path, expected: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every array, digest checked. Shapes are compared before a byte of an array is read."""
    arrays = {}
    if not path.is_file():
        raise UserError(f"{path} is missing. {REMEDY}")
    try:
        with places.local(path) as here, _opened(here) as file:
            if set(file.keys()) != set(expected):
                raise Damaged(f"{path} does not hold the arrays that graph.json lists. {REMEDY}")
            for name, about in expected.items():
                shape = file.get_slice(name).get_shape()
                if shape != about["shape"]:
                    raise Damaged(f"{path}: array '{name}' is {shape}, graph.json says {about['shape']}. {REMEDY}")
                array = file.get_tensor(name)
                if digest.of_array(array) != about["sha256"]:
                    raise Damaged(f"{path}: array '{name}' is not what was saved: its digest differs. {REMEDY}")
                array.flags.writeable = False
                arrays[name] = array
    except (SafetensorError, ValueError, OSError, KeyError) as error:
        raise Damaged(f"{path} is not a readable safetensors file ({error}). {REMEDY}") from None
    return arrays


def _opened(path: Path) -> Any:
    files.check_header(path)
    return safe_open(path, framework="numpy")
