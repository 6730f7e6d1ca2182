"""Turns text into token files for pretraining: one uint16 a token, 90% for training and 10% for validation.

Run:         python prepare.py                       the bundled corpus in the bundled vocabulary
             python prepare.py --preset shakespeare  Tiny Shakespeare in GPT-2's vocabulary (downloaded, or a local copy:
                                                     settings TINYSHAKESPEARE_DIR and GPT2_VOCAB_DIR)

Writes out/<preset>/train.bin and val.bin.

What it leaves out: texts larger than memory, other file types, several processes.
"""

import argparse

import numpy as np
from tqdm import tqdm

import tokenizer
from download import fetch
from presets import PRESETS, data_dir


def parts_of(preset: str) -> tuple[list[str], list[str]]:
    """The texts of a preset, (training, validation).

    Tiny Shakespeare is cut at 90% of its characters, as in the published experiment. Of the bundled corpus every tenth
    file of each kind is for validation, so that both parts hold plays, stories, dialogues and explanations.
    """
    if preset == "shakespeare":
        text = fetch("tinyshakespeare.txt").read_text(encoding="utf-8")
        cut = int(len(text) * 0.9)
        return [text[:cut]], [text[cut:]]
    texts = [path.read_text(encoding="utf-8") for path in tokenizer.corpus_files()]
    return [t for i, t in enumerate(texts) if i % 10 != 9], [t for i, t in enumerate(texts) if i % 10 == 9]


def main() -> None:
    parser = argparse.ArgumentParser(description="Text to token files for pretraining.")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="which data and vocabulary (default: %(default)s)")
    args = parser.parse_args()
    try:
        bpe = tokenizer.load(PRESETS[args.preset].vocabulary)
        parts = parts_of(args.preset)
    except (OSError, ValueError) as error:
        raise SystemExit(f"prepare.py: {error}") from None
    folder = data_dir(args.preset)
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in zip(("train", "val"), parts, strict=True):
        ids: list[int] = []
        for text in tqdm(texts, desc=name, unit="text"):
            ids += bpe.encode(text)
            if len(texts) > 1:
                ids.append(bpe.end_of_text)                    # so that the model learns where a text ends
        if bpe.vocab_size > 2**16:
            raise SystemExit(f"{bpe.vocab_size} tokens do not fit into uint16")
        np.array(ids, dtype=np.uint16).tofile(folder / f"{name}.bin")
        print(f"{name}: {sum(map(len, texts)):,} characters, {len(ids):,} tokens -> {folder / name}.bin")


if __name__ == "__main__":
    main()
