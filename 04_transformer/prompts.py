"""The two text formats that the models speak, chat and agent. Training and serving build their text only here.

Use:         encode_trace(agent_trace(question, rounds, answer), bpe); prompt_text(chat_trace(question))

A trace is a list of segments (text, learned). Joined, the texts are what the model sees; the loss is taken only on the
learned ones. So the prompt that is served is the same string, to the token, as the one that was trained on.

    Q: What is 1234 plus 5678?                                given
    THOUGHT: I calculate this.                                learned
    ACTION: calc(1234 + 5678)                                 learned
    OBSERVATION:                                              learned: the model's way to ask for the tool's result
     6912                                                     given: what the tool said, never the model's
    ANSWER: 6912<|endoftext|>                                 learned

Text is never control. What comes from a user or a tool is put on one line, so it cannot open a line of the protocol,
and it is encoded without special tokens, so "<|endoftext|>" in it is ordinary text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bpe import BPE, END_OF_TEXT

Segment = tuple[str, bool]                                     # (text, learned)
OBSERVATION = "OBSERVATION:"


@dataclass(frozen=True)
class Round:
    """One THOUGHT, ACTION, OBSERVATION round: the call is "tool(args)", the observation what the tool said."""

    thought: str
    call: str
    observation: str


def one_line(text: str) -> str:
    """Text from outside as one line: every run of white space (and each control character) becomes one space."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())


def quiet(text: str) -> str:
    """A question typed in capitals throughout, in small letters: "WHO WROTE HAMLET?" -> "who wrote hamlet?".

    The tools do not mind the case, and a small vocabulary has hardly a word in capitals. One short word, such as a
    name of letters, stays as it is.
    """
    return text.lower() if text.isupper() and sum(c.isalpha() for c in text) >= 8 else text


def _after(word: str, text: str) -> str:
    """The word that opens a line, and text from outside behind it.

    Without text there is no space either: it would be cut into tokens together with the line's end or apart from it,
    depending on whether another line follows, and the served prompt would not be the one that was trained on.
    """
    return f"{word} {one_line(text)}".rstrip()


def chat_trace(question: str, answer: str | None = None) -> list[Segment]:
    """A chat exchange; without an answer it is the prompt that asks for one."""
    segments = [(_after("Q:", quiet(question)) + "\nA:", False)]
    if answer is not None:
        segments.append((_after("", answer) + END_OF_TEXT, True))
    return segments


def agent_trace(question: str, rounds: Sequence[Round] = (), answer: str | None = None,
                thought: str | None = None) -> list[Segment]:
    """An agent's trace; without an answer it is the prompt that asks the model to go on.

    thought: reasoning before the answer, where there is any.
    """
    segments: list[Segment] = [(_after("Q:", quiet(question)) + "\n", False)]
    for r in rounds:
        thinking = _after("THOUGHT:", r.thought) + "\n" if r.thought else ""
        segments.append((thinking + _after("ACTION:", r.call) + f"\n{OBSERVATION}", True))
        segments.append((_after("", r.observation) + "\n", False))
    if answer is not None:
        thinking = _after("THOUGHT:", thought) + "\n" if thought else ""
        segments.append((thinking + _after("ANSWER:", answer) + END_OF_TEXT, True))
    return segments


def prompt_text(segments: Sequence[Segment]) -> str:
    """The segments as one string."""
    return "".join(text for text, _ in segments)


def encode_trace(segments: Sequence[Segment], bpe: BPE) -> tuple[list[int], list[int]]:
    """Segments -> (ids, targets), equally long: targets[t] is the token after ids[t], or -1 where nothing is learned.

    A learned segment may end with <|endoftext|>, which becomes the special token; nowhere else is text control.
    """
    ids: list[int] = []
    learned: list[bool] = []
    for text, is_learned in segments:
        ends = is_learned and text.endswith(END_OF_TEXT)
        part = bpe.encode(text.removesuffix(END_OF_TEXT) if ends else text) + ([bpe.end_of_text] if ends else [])
        ids += part
        learned += [is_learned] * len(part)
    targets = [token if is_learned else -1 for token, is_learned in zip(ids[1:], learned[1:], strict=True)]
    return ids[:-1], targets
