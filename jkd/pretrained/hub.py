"""Where a model comes from: a folder, or `hf:ORG/NAME@REVISION`, which becomes one.

The Hub's own cache is used, and read alone where `HF_HUB_OFFLINE` is set. Needs the extra `jkd[hub]`.
"""

import re

from jkd import digest, places
from jkd.errors import UserError, some

SCHEME = "hf:"
# What a model and its tokenizer are made of. Pickles are not even fetched.
WANTED = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
ADDRESS = re.compile(r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>[\w.][\w./-]*)", re.ASCII)


def is_address(text: str) -> bool:
    """Whether a text names a model of the Hub rather than a path."""
    return text.startswith(SCHEME)


def resolve(address: str) -> places.Path:
    """The folder that an address names: fetched into the Hub's cache, or found there; a path stays what it is.

    Args:
      address: `hf:ORG/NAME@REVISION`, the revision a commit, tag or branch. A commit never changes; where a
        branch stands is seen from `digests`.

    Raises:
      UserError: no such form, `huggingface_hub` is not installed, or the model cannot be had.
    """
    if not is_address(address):
        return places.path_of(address)
    found = ADDRESS.fullmatch(address)
    if not found or ".." in address:
        raise UserError(
            f"'{address}' is no address of a model. Expected hf:ORG/NAME@REVISION, for example "
            "hf:sentence-transformers/all-MiniLM-L6-v2@main; better than a branch is a commit, which never changes."
        )
    return places.path_of(_snapshot(address, found["name"], found["revision"]))


def digests(folder: str | places.Path) -> dict[str, str]:
    """`{file: SHA-256}` of the model's and the tokenizer's files in a folder: what goes on record."""
    folder = places.path_of(folder)
    files = sorted({path.name for pattern in WANTED for path in folder.glob(pattern) if path.is_file()})
    return {name: digest.of_file(folder / name) for name in files}


def _snapshot(address: str, name: str, revision: str) -> str:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{address} needs the package huggingface_hub: pip install 'jkd[hub]'.") from None
    try:
        folder = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(WANTED))
    except Exception as error:  # of the network, the Hub, the disk or the cache, each with a class of its own
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        advice = (
            "HF_HUB_OFFLINE is set and the cache has no such model: unset it, or fetch it first"
            if offline
            else "Check the name, the revision, the network and, for a private model, `hf auth login`"
        )
        raise UserError(f"{address} cannot be had ({_short(error)}). {advice}.") from None
    if not any(places.path_of(folder).iterdir()):
        raise UserError(f"{address} has none of {some(WANTED, 9)}. Give the address of a safetensors model.")
    return folder


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
