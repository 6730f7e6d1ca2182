"""Byte-level byte-pair encoding: text to token ids and back, and the training that finds the vocabulary.

Run:         python bpe.py                      check the bundled vocabulary and show how it cuts the seven samples
             python bpe.py --text "1234 plus"   the tokens of one text, with their ids
             python bpe.py --train              train the bundled vocabulary again from data/corpus

How it works. A text is cut into pieces (words, digits, runs of spaces) by a regular expression. A piece starts as its
UTF-8 bytes. Then, as long as two neighbours form a token of the vocabulary, the pair with the lowest rank (the one
learned first) is joined. Worked example, with the ranks  "lo" < "low" < "er":

    low er  <-  lo w er  <-  l o w e r        "lower" becomes the two tokens "low" and "er"

Because every byte is a token, any text can be encoded and nothing is ever "unknown".

What it leaves out: the faster encoders and the incremental trainer, which stand beside this file.
Source: Sennrich et al. 2016, arXiv:1508.07909; the byte-level form is section 2.2 of Radford et al. 2019 (GPT-2).
"""

import argparse
import codecs
import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import regex

END_OF_TEXT = "<|endoftext|>"

# GPT-2's pieces: an English contraction, a word, a number or a run of signs (each with at most one space in front), or
# spaces. "\s+(?!\S)" leaves the last space of a run to the word that follows.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# The same, but each digit is a piece of its own and takes no space with it. "1234" is then always 1 2 3 4, wherever
# it stands, so a small model can copy a number that it has never seen, digit by digit.
DIGIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

PATTERNS = {"gpt2": GPT2_PATTERN, "digits": DIGIT_PATTERN}
FILE_FORMAT = "query-to-flop bpe 1"


class BPE:
    """A byte-level BPE vocabulary.

    tokens:   the bytes of each token; its id is its place in the list. Ids of merged tokens are in the order in which
              they were learned, which is the order in which they are applied.
    pattern:  a key of PATTERNS.
    special:  text -> id of tokens that ordinary text never produces, such as {"<|endoftext|>": 1023}.
    """

    def __init__(self, tokens: list[bytes], pattern: str = "gpt2", special: dict[str, int] | None = None):
        if pattern not in PATTERNS:
            raise ValueError(f"unknown split pattern {pattern!r}; known: {', '.join(PATTERNS)}")
        self.tokens = tokens
        self.ranks = {token: i for i, token in enumerate(tokens)}
        if len(self.ranks) != len(tokens):
            raise ValueError("two tokens of the vocabulary have the same bytes")
        missing = [b for b in range(256) if bytes([b]) not in self.ranks]
        if missing:
            raise ValueError(f"the vocabulary lacks {len(missing)} of the 256 single bytes, for example {missing[0]}")
        self.special = dict(special or {})
        ids = list(self.special.values())
        if len(set(ids)) != len(ids) or min(ids, default=len(tokens)) < len(tokens):
            raise ValueError(f"special tokens need ids of their own, from {len(tokens)} on: {self.special}")
        self.pattern = pattern
        self.split = regex.compile(PATTERNS[pattern])
        self._special_text = {i: text.encode() for text, i in self.special.items()}
        self._cache: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return max([len(self.tokens) - 1, *self.special.values()]) + 1

    @property
    def end_of_text(self) -> int:
        """The id of <|endoftext|>."""
        return self.special[END_OF_TEXT]

    def merge(self, piece: bytes) -> list[int]:
        """The token ids of one piece: join the neighbours of lowest rank until no two form a token."""
        parts = [bytes([b]) for b in piece]
        while len(parts) > 1:
            ranked = [(self.ranks.get(a + b), i) for i, (a, b) in enumerate(pairwise(parts))]
            known = [(rank, i) for rank, i in ranked if rank is not None]
            if not known:
                break
            _, i = min(known)                                  # lowest rank, and of equal ones the leftmost
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return [self.ranks[part] for part in parts]

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of a text.

        Special tokens are recognised only with allow_special; without it "<|endoftext|>" is thirteen ordinary
        characters, so that what a user types can never act as a control token. Lone surrogates, which UTF-8
        cannot carry, become U+FFFD.
        """
        if allow_special and self.special:
            longest_first = sorted(self.special, key=len, reverse=True)
            parts = regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text)
            return [i for part in parts for i in ([self.special[part]] if part in self.special else self.encode(part))]
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids: list[int] = []
        for piece in self.split.findall(text):
            cached = self._cache.get(piece)
            if cached is None:
                cached = self.merge(piece.encode())
                if len(self._cache) < 500_000:                 # words repeat: most of a text comes from here
                    self._cache[piece] = cached
            ids.extend(cached)
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token. Raises ValueError for an id outside the vocabulary."""
        if token_id in self._special_text:
            return self._special_text[token_id]
        if not 0 <= token_id < len(self.tokens):
            raise ValueError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        return self.tokens[token_id]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids. Bytes that are no whole UTF-8 character become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def stream(self) -> "StreamDecoder":
        """A decoder that takes one id at a time and gives out whole characters only."""
        return StreamDecoder(self)

    # -- training ------------------------------------------------------------------------------------------------

    @classmethod
    def train(cls, text: str, vocab_size: int, pattern: str = "gpt2", progress=iter) -> "BPE":
        """Learn a vocabulary: count all neighbouring pairs, join the most frequent one everywhere, repeat.

        vocab_size counts the 256 bytes, the learned tokens and <|endoftext|>, which gets the last id. Of pairs that
        are equally frequent the one with the smaller (left id, right id) wins, so the result is the same everywhere.
        progress wraps the range of merges (tqdm fits). Raises ValueError if the text is too short for so many tokens.
        """
        if vocab_size < 257:
            raise ValueError(f"vocab_size must be at least 257 (256 bytes and {END_OF_TEXT}), not {vocab_size}")
        words = Counter(regex.findall(PATTERNS[pattern], text))
        pieces = [(list(word.encode()), count) for word, count in words.items()]
        tokens = [bytes([b]) for b in range(256)]
        ranks = {token: i for i, token in enumerate(tokens)}
        for _ in progress(range(vocab_size - 257)):
            while True:
                counts: Counter = Counter()
                for ids, count in pieces:
                    for pair in pairwise(ids):
                        counts[pair] += count
                if not counts:
                    raise ValueError(f"the text has only {len(tokens)} tokens to learn, not {vocab_size - 1}")
                (left, right), _ = min(counts.items(), key=lambda item: (-item[1], item[0]))
                token = tokens[left] + tokens[right]
                is_new = token not in ranks                    # else the same bytes were once reached by another pair
                if is_new:
                    ranks[token] = len(tokens)
                    tokens.append(token)
                for ids, _ in pieces:
                    _join(ids, left, right, ranks[token])
                if is_new:
                    break
        return cls(tokens, pattern, {END_OF_TEXT: vocab_size - 1})

    # -- files ---------------------------------------------------------------------------------------------------

    def state(self) -> dict:
        """The vocabulary as plain values (for JSON files and checkpoints): tokens as hexadecimal strings."""
        return {"format": FILE_FORMAT, "pattern": self.pattern, "special": dict(self.special),
                "tokens": [token.hex() for token in self.tokens]}

    @classmethod
    def from_state(cls, state: dict) -> "BPE":
        """The inverse of state(). Raises ValueError for another format."""
        if state.get("format") != FILE_FORMAT:
            raise ValueError(f"not a vocabulary of format {FILE_FORMAT!r}: {state.get('format')!r}")
        return cls([bytes.fromhex(token) for token in state["tokens"]], state["pattern"], state["special"])

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON (UTF-8)."""
        Path(path).write_text(json.dumps(self.state(), indent=0) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "BPE":
        """Read what save() wrote."""
        return cls.from_state(json.loads(Path(path).read_text(encoding="utf-8")))


class StreamDecoder:
    """Turns token ids that come one by one into text, holding back the bytes of an unfinished character."""

    def __init__(self, bpe: BPE):
        self._bpe = bpe
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The characters that this token completes; may be empty."""
        return self._utf8.decode(self._bpe.token_bytes(token_id))

    def flush(self) -> str:
        """What an unfinished character becomes at the end: U+FFFD, or nothing."""
        return self._utf8.decode(b"", final=True)


def _join(ids: list[int], left: int, right: int, joined: int) -> None:
    """Replace each (left, right) in ids by joined, in place, from left to right."""
    i = 0
    while i < len(ids) - 1:
        if ids[i] == left and ids[i + 1] == right:
            ids[i : i + 2] = [joined]
        i += 1


SAMPLES = [
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "ROMEO:\nBut soft, what light through yonder window breaks?",
    "What is 1234 plus 5678?",
    "a  b\t\tc \n\n  d   \n",
    "你好世界, こんにちは, 👩‍🚀🚀 naïve café",
    "3.14159 * (2 + 40) - 7 / 8 == 0x1F",
]


def show(bpe: BPE, text: str) -> None:
    """Print the tokens of a text, each with its id."""
    ids = bpe.encode(text)
    print(f"{text!r}\n  {len(text.encode())} bytes, {len(ids)} tokens")
    print("  " + " ".join(f"{bpe.token_bytes(i).decode('utf-8', 'backslashreplace')!r}:{i}" for i in ids))


def main() -> None:
    import tokenizer
    parser = argparse.ArgumentParser(description="Byte-level BPE: check, show, train.")
    parser.add_argument("--text", help="show the tokens of this text and stop")
    parser.add_argument("--vocab", default="bundled", help="bundled, gpt2 or a vocabulary file (default: %(default)s)")
    parser.add_argument("--train", action="store_true", help="train the bundled vocabulary again and save it")
    parser.add_argument("--size", type=int, default=1024, help="with --train: number of tokens (default: %(default)s)")
    args = parser.parse_args()
    if args.train:
        from tqdm import tqdm
        text = tokenizer.training_text()
        bpe = BPE.train(text, args.size, "digits", lambda merges: tqdm(merges, desc="merges", unit="merge"))
        bpe.save(tokenizer.BUNDLED)
        print(f"{bpe.vocab_size} tokens learned from {len(text.encode()):,} bytes, saved to {tokenizer.BUNDLED}")
        return
    try:
        bpe = tokenizer.load(args.vocab)
    except (OSError, ValueError) as error:
        raise SystemExit(f"bpe.py: {error}") from None
    for sample in [args.text] if args.text is not None else SAMPLES:
        show(bpe, sample)
        if bpe.decode(bpe.encode(sample)) != sample:
            raise SystemExit("FAILED: the text does not come back from its tokens")
    if args.text is None:
        corpus = tokenizer.corpus_text()
        ids = bpe.encode(corpus)
        if bpe.decode(ids) != corpus:
            raise SystemExit("FAILED: the corpus does not come back from its tokens")
        print(f"corpus: {len(corpus.encode()):,} bytes, {len(ids):,} tokens, "
              f"{len(corpus.encode()) / len(ids):.2f} bytes a token. Every text came back exactly.")


if __name__ == "__main__":
    main()
