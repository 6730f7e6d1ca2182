"""The engine: one model, many requests, one token at a time. Prefill reads the prompt, decode adds tokens to it.

Use:         engine = Engine.load("out/agent.pt");  for event in engine.generate(Request(prompt="Q: Hi\\n")): ...

A request holds its own KV cache, so requests on different threads take turns token by token.

What it leaves out: batching requests into one step, a preallocated or paged cache, sharing the cache of equal prefixes.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

import checkpoint
from bpe import BPE
from model import GPT
from sampling import sample


class BadRequest(ValueError):
    """A request that cannot be served; the message says why and what would work."""


@dataclass(frozen=True)
class Request:
    """What to generate. stop: texts that end the answer (they are not part of it). logprobs: how many alternatives to report."""

    prompt: str
    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int = 0


@dataclass(frozen=True)
class Piece:
    """Some text of the answer, whole characters only, and the tokens it came from (with logprobs, if they were asked for)."""

    text: str
    tokens: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """How it ended. reason: "stop" (a stop text, or the end of the text), "length" or "cancelled"; times in seconds."""

    reason: str
    stop_reason: str | None                                    # the stop text that was met
    prompt_tokens: int
    completion_tokens: int
    queue: float
    prefill: float
    decode: float


class StopFilter:
    """Holds back text that may be the beginning of a stop text, so that no part of one is ever sent."""

    def __init__(self, stops: tuple[str, ...]):
        self.stops = tuple(stop for stop in stops if stop)     # an empty one would stand at the start of every text
        self.held = ""
        self.met: str | None = None

    def push(self, text: str) -> str:
        """Text that is safe to send now. Once a stop text is found, met names it and nothing more comes.

        The stop text that is complete first counts (the longest of those), so where the text was cut does not matter.
        """
        self.held += text
        found = [(self.held.find(stop) + len(stop), -len(stop), stop) for stop in self.stops if stop in self.held]
        if found:
            end, _, self.met = min(found)
            safe, self.held = self.held[: end - len(self.met)], ""
            return safe
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        cut = len(self.held) - keep
        safe, self.held = self.held[:cut], self.held[cut:]
        return safe

    def flush(self) -> str:
        """What was held back and turned out to be ordinary text."""
        safe, self.held = self.held, ""
        return safe


class Engine:
    """Generates text with one model. Safe to use from several threads; each step of a request holds the lock."""

    def __init__(self, model: GPT, bpe: BPE, info: dict | None = None):
        self.model, self.bpe, self.info = model.eval(), bpe, info or {}
        self.device = model.wte.weight.device
        self._longest = max(map(len, bpe.tokens))              # bytes of the longest token
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str, device: str = "auto") -> "Engine":
        """An engine from a checkpoint file."""
        return cls(*checkpoint.load(path, checkpoint.pick_device(device)))

    def prepare(self, request: Request) -> list[int]:
        """The prompt's token ids. Raises BadRequest if the request cannot be served."""
        block = self.model.config.block_size
        if len(request.prompt) >= block * self._longest:       # found without the work of encoding it
            raise BadRequest(f"the prompt is too long: {len(request.prompt)} characters, more than {block} tokens, which "
                             "is all that this model sees; shorten it")
        ids = self.bpe.encode(request.prompt)                  # special tokens in a prompt are ordinary text
        if not ids:
            raise BadRequest("the prompt is empty")
        if len(ids) >= block:
            raise BadRequest(f"the prompt is too long: {len(ids)} tokens, but this model sees {block} in all; shorten it")
        if not 0 <= request.logprobs <= min(20, self.bpe.vocab_size):
            raise BadRequest("logprobs must be between 0 and 20")
        return ids

    @torch.no_grad()
    def generate(self, request: Request, cancelled: threading.Event | None = None,
                 arrived: float | None = None) -> Iterator[Piece | Finished]:
        """Pieces of the answer, then one Finished. Setting cancelled stops it before the next token.

        arrived: when the request came in (time.perf_counter), where it has waited already.
        """
        arrived = time.perf_counter() if arrived is None else arrived
        # Colder than a millionth is greedy: dividing logits by less, or keeping less, leaves float32's range.
        temperature, top_p = request.temperature if request.temperature > 1e-6 else 0.0, max(request.top_p, 1e-6)
        ids = self.prepare(request)
        most = min(request.max_tokens, self.model.config.block_size - len(ids))
        rng = torch.Generator().manual_seed(request.seed) if request.seed is not None else None
        text, stop = self.bpe.stream(), StopFilter(request.stop)
        new, cache, made, tokens = ids, None, 0, []
        reason, started, prefilled = "length", None, arrived
        while made < most:
            if cancelled is not None and cancelled.is_set():
                reason = "cancelled"
                break
            with self._lock:
                started = started or time.perf_counter()
                logits, cache = self.model.step(torch.tensor([new], device=self.device), cache)
                last = logits[0, -1].float().cpu()             # (V,)
            if made == 0:
                prefilled = time.perf_counter()
            token = sample(last, temperature, request.top_k, top_p, rng)
            made += 1
            if token == self.bpe.end_of_text:
                reason = "stop"
                break
            new = [token]
            if request.logprobs:
                tokens.append(self._report(last, token, request.logprobs))
            safe = stop.push(text.push(token))
            if safe:
                yield Piece(safe, tokens)
                tokens = []
            if stop.met is not None:
                reason = "stop"
                break
        if stop.met is None:
            rest = stop.push(text.flush()) + stop.flush()
            if rest or tokens:
                yield Piece(rest, tokens)
        now = time.perf_counter()
        started = started or now
        yield Finished(reason, stop.met, len(ids), made, started - arrived, max(0.0, prefilled - started), now - prefilled)

    def _report(self, logits: torch.Tensor, token: int, count: int) -> dict:
        """A token's logprob and those of the count most likely ones, in nats."""
        logprobs = logits.log_softmax(-1)
        values, ids = logprobs.topk(count)
        show = lambda i: self.bpe.decode([i])  # noqa: E731
        return {"token": show(token), "id": token, "logprob": float(logprobs[token]),
                "top": [{"token": show(i), "id": i, "logprob": v} for v, i in zip(values.tolist(), ids.tolist(), strict=True)]}
