"""The agent loop (L8): think, act, observe, and again, until there is an answer. ReAct (Yao et al. 2022, arXiv:2210.03629).

Use:         async for event in run("What is 1234 plus 5678?", model_url="http://127.0.0.1:9000"): ...

The model writes THOUGHT and ACTION and asks for a result by writing "OBSERVATION:", where generation stops. The loop
runs the tool, puts its result into the prompt and lets the model go on, until it writes ANSWER.

Events: thought, action, observation and token (of the answer) carry text in "v", in pieces; then trace, error, done.
A mistake of the model (an unknown tool, an unreadable call) becomes an observation and the loop goes on; a failure of the
server becomes an error event.

What it leaves out: memory of earlier questions.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator

from client import ModelServerError, stream
from prompts import OBSERVATION, Round, agent_trace, one_line, prompt_text
from tools import default_tools, run_tool

MAX_ROUNDS = 5                                                 # tool calls for one question
MAX_TOKENS = 160                                               # of one generation
TOOL_SECONDS = 5.0

KINDS = {"THOUGHT:": "thought", "ACTION:": "action", "ANSWER:": "token"}


class LineParser:
    """Cuts the model's text, as it streams in, into (kind, text) events by the word that opens each line."""

    def __init__(self):
        self.kind: str | None = None
        self.pending = ""                                      # the beginning of a line whose kind is not known yet
        self.texts = {"thought": "", "action": "", "token": ""}

    def push(self, text: str) -> list[dict]:
        """Events for some more text."""
        events = []
        for character in text:
            if character == "\n":
                self.kind, self.pending = None, ""
            elif self.kind is None:
                self.pending += character
                self.kind = KINDS.get(self.pending)
                if self.kind:
                    self.texts[self.kind] = ""                 # a later line of the same kind replaces the earlier
            elif self.texts[self.kind] or character != " ":    # the space behind the colon is not part of the text
                self.texts[self.kind] += character
                events.append({"type": self.kind, "v": character})
        return _joined(events)


def _joined(events: list[dict]) -> list[dict]:
    """Neighbouring events of one kind as one."""
    joined: list[dict] = []
    for event in events:
        if joined and joined[-1]["type"] == event["type"]:
            joined[-1]["v"] += event["v"]
        else:
            joined.append(dict(event))
    return joined


class Spans:
    """The trace of one request: what each layer did and when, in seconds since the request began."""

    def __init__(self):
        self.began = time.perf_counter()
        self.spans: list[dict] = []

    def now(self) -> float:
        return time.perf_counter() - self.began

    def add(self, layer: str, name: str, start: float, duration: float, **details) -> None:
        self.spans.append({"layer": layer, "name": name, "start": round(start, 6),
                           "duration": round(duration, 6), "details": details})

    def add_generation(self, start: float, done: dict) -> None:
        """A generation as L8 saw it, and inside it the phases that L6 reported."""
        timings, usage = done["timings"], done["usage"]
        self.add("L8", "generate", start, self.now() - start, **usage)
        for name in ("queue", "prefill", "decode"):
            tokens = {"prefill": usage["prompt_tokens"], "decode": usage["completion_tokens"]}.get(name)
            self.add("L6", name, start, timings[name], **({"tokens": tokens} if tokens else {}))
            start += timings[name]


async def run(query: str, *, model_url: str, request_id: str | None = None, temperature: float = 0.0,
              tools: dict | None = None) -> AsyncGenerator[dict]:
    """Answer one question; yields events as they happen, the last is always {"type": "done"}.

    tools: name -> function of one text; the default has calc and lookup. Closing the iterator stops the generation.
    """
    tools = default_tools() if tools is None else tools
    request_id = request_id or uuid.uuid4().hex
    spans, rounds, problem = Spans(), [], None
    try:
        while True:
            parser, start, done = LineParser(), spans.now(), None
            prompt = prompt_text(agent_trace(query, rounds))
            events = stream(model_url, prompt, max_tokens=MAX_TOKENS, temperature=temperature, stop=[OBSERVATION],
                            request_id=request_id)
            try:
                async for event in events:
                    if event.get("done"):
                        done = event
                    else:
                        for piece in parser.push(event["token"]):
                            yield piece
            finally:
                await events.aclose()
            assert done is not None
            spans.add_generation(start, done)
            texts = parser.texts
            if done["stop_reason"] != OBSERVATION:
                if done["finish_reason"] == "length":
                    problem = "the model ran out of room before it reached an answer; ask a shorter question"
                elif not texts["token"]:
                    problem = "the model ended without an answer; ask in other words"
                break
            if len(rounds) == MAX_ROUNDS:
                problem = f"no answer after {MAX_ROUNDS} tool calls"
                break
            start = spans.now()
            said = await _call(texts["action"], tools)
            spans.add("L8", "tool", start, spans.now() - start, call=texts["action"])
            yield {"type": "observation", "v": said}
            rounds.append(Round(texts["thought"].strip(), texts["action"].strip(), said))
    except ModelServerError as error:
        problem = str(error)
    yield {"type": "trace", "id": request_id, "spans": spans.spans}
    if problem:
        yield {"type": "error", "message": problem[:1].upper() + problem[1:]}
    yield {"type": "done"}


async def _call(call: str, tools: dict) -> str:
    """What the tool said, as one line; a tool that takes too long is given up."""
    if not call.strip():
        return "error: there was no action"
    try:
        return one_line(await asyncio.wait_for(asyncio.to_thread(run_tool, call, tools), TOOL_SECONDS))
    except TimeoutError:
        return "error: the tool took too long"
