"""L7, the web app: serves the chat page and answers POST /chat with the agent's events as they happen.

Run:         AGENT_MODE=1 uvicorn 01_app.backend.main:app --port 8000        from the repository root, then open
             http://localhost:8000. Settings are environment variables:
             AGENT_MODE   1 (default) the agent loop with its tools, 0 plain chat with the model
             MODEL_URL    where the inference server (L6) answers, default http://127.0.0.1:9000

A question goes in as {"query": "..."}; server-sent events come out, each one JSON object with a "type": thought,
action, observation and token (a piece of the answer) carry text in "v"; then trace, where something broke error, and
always last done. No request leaves anything behind: the only things that outlive one are the two settings.

What it leaves out: accounts, a memory of earlier questions, and limits on how often one may ask.
"""

import json
import logging
import os
import re
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, field_validator
from pydantic_core import PydanticCustomError
from sse_starlette import EventSourceResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import agent_loop
from client import ModelServerError
from client import stream as generate
from prompts import chat_trace, one_line, prompt_text

FRONTEND = Path(__file__).resolve().parent.parent / "frontend"
AGENT_MODE = os.environ.get("AGENT_MODE", "1")
MODEL_URL = os.environ.get("MODEL_URL", "http://127.0.0.1:9000").rstrip("/")
if AGENT_MODE not in ("0", "1"):
    raise ValueError(f"AGENT_MODE must be 1 (the agent) or 0 (plain chat), not {AGENT_MODE!r}")
if not MODEL_URL.startswith(("http://", "https://")):
    raise ValueError(f"MODEL_URL must be an address such as http://127.0.0.1:9000, not {MODEL_URL!r}")

MAX_QUERY = 500                                                # characters; frontend/index.html says it to the page
MAX_ANSWER = 128                                               # tokens, in plain chat
HEALTH_TIMEOUT = 3.0                                           # seconds

# The page needs nothing but itself. The policy makes the browser hold it to that, whatever a model may write.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
                               "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
log = logging.getLogger("uvicorn.error")                       # uvicorn's own log, so that a failure shows in it


class AddHeaders:
    """Puts HEADERS on every response; files are to be checked for a newer version before each use.

    Written against ASGI itself: Starlette's decorator for middleware puts a queue between the answer and the client.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self.app(scope, receive, send_with_headers)


# FastAPI's own documentation pages load scripts from another host, so they are off.
app = FastAPI(title="query-to-flop", docs_url=None, redoc_url=None, openapi_url=None)
app.add_middleware(AddHeaders)


# -- What comes in ---------------------------------------------------------------------------------------------------

class Question(BaseModel):
    """The body of POST /chat."""

    query: str

    @field_validator("query")
    @classmethod
    def can_be_asked(cls, query: str) -> str:
        """The query without white space around it; refuses one that is empty or longer than MAX_QUERY characters."""
        query = query.strip()
        if not one_line(query):
            raise PydanticCustomError("query", "The question is empty. Type one, such as: What is 1234 plus 5678?")
        if len(query) > MAX_QUERY:
            raise PydanticCustomError("query", "The question has {length} characters; at most {most} fit.",
                                      {"length": len(query), "most": MAX_QUERY})
        return query


@app.exception_handler(RequestValidationError)
async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
    """A bad body -> 422 with one sentence. FastAPI's own answer repeats the input, which may not even be valid text."""
    first = error.errors()[0]
    expected = 'The body must be JSON (Content-Type: application/json) such as {"query": "What is 1234 plus 5678?"}.'
    return JSONResponse({"detail": first["msg"] if first["type"] == "query" else expected}, status_code=422)


def request_id_of(request: Request) -> str:
    """The caller's X-Request-Id, so that one id follows a request through every layer's log; else a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else uuid.uuid4().hex


# -- What goes out ---------------------------------------------------------------------------------------------------

@app.post("/chat")
async def chat(question: Question, request: Request) -> EventSourceResponse:
    """Answers a question with server-sent events. When the browser goes away, the stream is closed, and L6 stops."""
    request_id = request_id_of(request)
    return EventSourceResponse(stream(question.query, request_id), headers={"X-Request-Id": request_id})


async def stream(query: str, request_id: str) -> AsyncGenerator[dict]:
    """The events of one request, ready to be sent, with L7's own span in the trace; whatever happens, done is last."""
    began = time.perf_counter()
    if AGENT_MODE == "1":
        answer = agent_loop.run(query, model_url=MODEL_URL, request_id=request_id)
    else:
        answer = plain_chat(query, request_id)
    try:
        # aclosing: a generator that is merely dropped is closed some time later, and L6 would go on until then.
        async with aclosing(answer):
            async for event in answer:
                if event["type"] == "done":
                    break
                if event["type"] == "trace":
                    own = span("L7", "chat", began, began, mode="agent" if AGENT_MODE == "1" else "chat")
                    event = {**event, "spans": [own, *event["spans"]]}
                yield sse(event)
    except Exception:
        log.exception("request %s failed", request_id)
        yield sse({"type": "error", "message": f"The web app failed; its log says more (request {request_id})."})
    yield sse({"type": "done"})


def sse(event: dict) -> dict:
    """An event as sse-starlette takes it: one line "data: {...}"; JSON escapes whatever could break the line."""
    return {"data": json.dumps(event)}


def span(layer: str, name: str, began: float, request_began: float, **details) -> dict:
    """A span from `began` until now; both times as of time.perf_counter()."""
    return {"layer": layer, "name": name, "start": round(began - request_began, 6),
            "duration": round(time.perf_counter() - began, 6), "details": details}


# -- Plain chat, without the agent -----------------------------------------------------------------------------------

async def plain_chat(query: str, request_id: str) -> AsyncGenerator[dict]:
    """AGENT_MODE=0: one generation of L6, its text passed on as token events."""
    began, problem, text, end = time.perf_counter(), None, "", {}
    prompt = prompt_text(chat_trace(query))
    try:
        async with aclosing(generate(MODEL_URL, prompt, max_tokens=MAX_ANSWER, stop=["\n"],
                                     request_id=request_id)) as pieces:
            async for piece in pieces:
                if piece.get("done"):
                    end = {"finish_reason": piece["finish_reason"], **piece["usage"], **piece["timings"]}
                    break
                # The model writes a space behind "A:"; it belongs to the format and not to the answer.
                new = piece["token"] if text else piece["token"].lstrip()
                text += new
                if new:
                    yield {"type": "token", "v": new}
    except ModelServerError as error:
        problem = str(error)
    yield {"type": "trace", "id": request_id, "spans": [span("L6", "generate", began, began, **end)]}
    if problem:
        yield {"type": "error", "message": problem[:1].upper() + problem[1:]}
    yield {"type": "done"}


# -- The page --------------------------------------------------------------------------------------------------------

@app.get("/health")
async def health() -> dict:
    """Whether this app is up (it is), whether L6 answers, and which model it serves."""
    try:
        # trust_env=False: a proxy set for the internet must not stand between two processes of one machine.
        # verify: loading the certificates takes longer than the question, and http needs none.
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT, trust_env=False,
                                     verify=MODEL_URL.startswith("https")) as client:
            model = (await client.get(f"{MODEL_URL}/health")).raise_for_status().json()["model"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        model = None
    return {"status": "ok", "mode": "agent" if AGENT_MODE == "1" else "chat", "model_server": MODEL_URL,
            "reachable": model is not None, "model": model}


app.mount("/", StaticFiles(directory=FRONTEND, html=True))      # last, because it answers every path
