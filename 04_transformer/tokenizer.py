"""The vocabulary that everything shares: the bundled one at module level, others by load().

Use:         import tokenizer; ids = tokenizer.encode("Hello world"); tokenizer.decode(ids)
             tokenizer.load("gpt2")     GPT-2's vocabulary: a local copy, else downloaded once

The bundled vocabulary was trained by bpe.py on data/corpus and lies in data/tokenizer.json.
"""

import json
import os
from functools import cache
from pathlib import Path

from bpe import BPE, END_OF_TEXT
from download import fetch

DATA = Path(__file__).resolve().parent.parent / "data"
BUNDLED = DATA / "tokenizer.json"
CORPUS = DATA / "corpus"
FORMAT_WORDS = "\nTHOUGHT:\nACTION:\nOBSERVATION:\nANSWER:\nlookup(\ncalc(\n"


@cache
def load(name: str = "bundled") -> BPE:
    """A vocabulary by name ("bundled", "gpt2") or by the path of a file that BPE.save wrote.

    "gpt2" needs OpenAI's two files; the setting GPT2_VOCAB_DIR names a folder that has them (encoder.json and
    vocab.bpe), otherwise they are downloaded and cached.
    """
    if name == "bundled":
        if not BUNDLED.exists():
            raise FileNotFoundError(f"{BUNDLED} is missing: run  python 04_transformer/bpe.py --train")
        return BPE.load(BUNDLED)
    if name == "gpt2":
        return from_gpt2_files(fetch("gpt2/encoder.json", os.environ.get("GPT2_VOCAB_DIR")),
                               fetch("gpt2/vocab.bpe", os.environ.get("GPT2_VOCAB_DIR")))
    if not Path(name).is_file():
        raise FileNotFoundError(f"no vocabulary {name!r}: give bundled, gpt2 or the path of a vocabulary file")
    return BPE.load(name)


def from_gpt2_files(encoder_json: Path, vocab_bpe: Path) -> BPE:
    """GPT-2's vocabulary from its published files.

    The files write each byte as one printable character: bytes that print stand for themselves, the other 68
    are shifted to U+0100 and up. encoder.json maps such strings to ids; vocab.bpe lists the merges in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    ids: dict[str, int] = json.loads(Path(encoder_json).read_text(encoding="utf-8"))
    special = {END_OF_TEXT: ids.pop(END_OF_TEXT)}
    tokens = [bytes(byte_of[c] for c in text) for text, _ in sorted(ids.items(), key=lambda item: item[1])]
    merges = Path(vocab_bpe).read_text(encoding="utf-8").split("\n")[1:-1]
    for i, merge in enumerate(merges):
        if tokens[256 + i] != bytes(byte_of[c] for c in merge.replace(" ", "")):
            raise ValueError(f"{vocab_bpe}: merge {i} ({merge!r}) does not give token {256 + i} of {encoder_json}")
    return BPE(tokens, "gpt2", special)


def corpus_files() -> list[Path]:
    """The files of the bundled corpus, in one fixed order."""
    files = sorted(CORPUS.rglob("*.txt"))
    if not files:
        raise FileNotFoundError(f"no corpus under {CORPUS}")
    return files


def corpus_text() -> str:
    """The bundled corpus as one text, its files parted by an empty line."""
    return "\n".join(path.read_text(encoding="utf-8") for path in corpus_files())


def training_text() -> str:
    """What the bundled vocabulary is trained on: the corpus, and the agent's words often enough to become tokens."""
    return corpus_text() + FORMAT_WORDS * 300


def encode(text: str) -> list[int]:
    """Token ids of a text in the bundled vocabulary; special tokens in it are ordinary text."""
    return load().encode(text)


def decode(ids: list[int]) -> str:
    """Text of token ids in the bundled vocabulary."""
    return load().decode(ids)


def decode_one(token_id: int) -> str:
    """Text of a single token; a part of a character shows as U+FFFD."""
    return load().decode([token_id])
