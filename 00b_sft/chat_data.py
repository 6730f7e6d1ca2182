"""The question/answer pairs of data/qa.txt as rows for instruction tuning: the loss is taken on the answer only.

Use:         rows = encode_pairs(read_pairs(), bpe)
"""

from pathlib import Path

from bpe import BPE
from prompts import chat_trace, encode_trace

QA = Path(__file__).resolve().parent.parent / "data" / "qa.txt"


def read_pairs(path: Path = QA) -> list[tuple[str, str]]:
    """(question, answer) of every "Q: ..." and "A: ..." block. Raises ValueError with the line of a block of another form."""
    pairs = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("Q: "):
            if number + 1 == len(lines) or not lines[number + 1].startswith("A: "):
                raise ValueError(f"{path}, line {number + 1}: a question without an answer: {line!r}")
            pairs.append((line[3:], lines[number + 1][3:]))
        elif line.strip() and not line.startswith(("A: ", "#")):
            raise ValueError(f"{path}, line {number + 1}: neither Q nor A: {line!r}")
    return pairs


def encode_pairs(pairs: list[tuple[str, str]], bpe: BPE) -> list[tuple[list[int], list[int]]]:
    """Pairs -> rows of (ids, targets), with targets only on the answers."""
    return [encode_trace(chat_trace(question, answer), bpe) for question, answer in pairs]
