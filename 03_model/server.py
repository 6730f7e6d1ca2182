"""The inference server (L6): a checkpoint behind HTTP, tokens as server-sent events.

Run:         python server.py                                  serves MODEL_PATH, else 00c_agent_sft/out/agent.pt, on port 9000
             python server.py --model ../00_train/out/base.pt --port 9001

POST /generate {"prompt": "Q: Hi\\n", "max_tokens": 50}  ->  data: {"token": "..."} ... data: {"done": true, ...}
GET /health, and the OpenAI-compatible /v1/models, /v1/completions, /v1/chat/completions.

Generation runs on threads of its own, so the event loop always answers; a client that goes away stops its generation.

What it leaves out: batching, authentication, more than one model.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, Header, HTTPException
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sse_starlette.sse import EventSourceResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from engine import BadRequest, Engine, Finished, Piece, Request

DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "00c_agent_sft" / "out" / "agent.pt"
AT_ONCE = 8                                                    # requests that generate at the same time; others wait


class GenerateBody(BaseModel):
    """The body of POST /generate."""

    prompt: str
    max_tokens: int = Field(256, ge=1, le=100_000)
    temperature: float = Field(0.0, ge=0, le=10)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: list[str] | str = Field(default_factory=list)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: int = Field(0, ge=0, le=20)

    def request(self) -> Request:
        """The same as the engine wants it."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        return Request(self.prompt, self.max_tokens, self.temperature, self.top_k, self.top_p,
                       tuple(stop for stop in stops if stop), self.seed, self.logprobs)


async def stream(engine: Engine, request: Request, places: asyncio.Semaphore) -> AsyncGenerator[Piece | Finished]:
    """The engine's events on the event loop; the work is done by a thread.

    When the consumer stops listening (its task is cancelled or the iterator is closed), the thread stops too.
    """
    loop, arrived = asyncio.get_running_loop(), time.perf_counter()
    events: asyncio.Queue = asyncio.Queue()
    cancelled = threading.Event()

    def work() -> None:
        try:
            for event in engine.generate(request, cancelled, arrived):
                loop.call_soon_threadsafe(events.put_nowait, event)
        except Exception as error:
            loop.call_soon_threadsafe(events.put_nowait, error)

    async with places:
        thread = asyncio.create_task(asyncio.to_thread(work))
        try:
            while True:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            cancelled.set()
            await asyncio.shield(thread)


def make_app(engine: Engine) -> FastAPI:
    """The application that serves one engine."""
    from openai_api import router
    app = FastAPI(title="query-to-flop model server")
    places = asyncio.Semaphore(AT_ONCE)
    app.include_router(router(engine, lambda request: stream(engine, request, places)))

    @app.exception_handler(RequestValidationError)
    async def refuse_body(_, error: RequestValidationError) -> JSONResponse:
        """A bad body -> 422 with one sentence. FastAPI's own answer repeats the input, which may be no valid text."""
        said = ["the body is no JSON" if e["type"] == "json_invalid" else
                f"{'.'.join(map(str, e['loc'][1:])) or 'the body'}: {e['msg']}" for e in error.errors()]
        return refused("; ".join(said), 422)

    @app.exception_handler(AnyHTTPException)
    async def refuse(_, error: AnyHTTPException) -> JSONResponse:
        return refused(str(error.detail), error.status_code)

    def refused(sentence: str, status: int) -> JSONResponse:
        """Why a request is refused, in FastAPI's form and in OpenAI's, whose clients show "message" only."""
        return JSONResponse({"detail": sentence, "error": {"message": sentence, "type": "invalid_request_error"}}, status)

    @app.get("/health")
    def health() -> dict:
        config = vars(engine.model.config)
        return {"status": "ok", "model": {"stage": engine.info.get("stage"), "parameters": engine.model.n_params(),
                                          "device": str(engine.device), **config}}

    @app.post("/generate")
    async def generate(body: GenerateBody, x_request_id: str | None = Header(None)) -> EventSourceResponse:
        request = body.request()
        request_id = x_request_id or uuid.uuid4().hex
        try:
            await run_in_threadpool(engine.prepare, request)   # a long prompt must not hold up the event loop
        except BadRequest as error:
            raise HTTPException(400, str(error)) from None

        async def events() -> AsyncGenerator[dict]:
            async for event in stream(engine, request, places):
                if isinstance(event, Piece):
                    extra = {"logprobs": event.tokens} if request.logprobs else {}
                    yield {"data": json.dumps({"token": event.text, **extra})}
                else:
                    yield {"data": json.dumps({
                        "done": True, "id": request_id, "finish_reason": event.reason, "stop_reason": event.stop_reason,
                        "usage": {"prompt_tokens": event.prompt_tokens, "completion_tokens": event.completion_tokens},
                        "timings": {"queue": event.queue, "prefill": event.prefill, "decode": event.decode}})}

        return EventSourceResponse(events(), headers={"X-Request-Id": request_id})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a checkpoint over HTTP.")
    parser.add_argument("--model", default=os.environ.get("MODEL_PATH", str(DEFAULT_MODEL)),
                        help="checkpoint (default: the setting MODEL_PATH, else the agent of 00c_agent_sft)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="port (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0,
                        help="CPU threads for one step, 0 for torch's choice (default: %(default)s)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        engine = Engine.load(args.model, args.device)
    except (OSError, ValueError) as error:
        raise SystemExit(f"server.py: {error}") from None
    except (RuntimeError, AssertionError, KeyError, TypeError) as error:     # no such device, or the file lacks parts
        raise SystemExit(f"server.py: cannot load {args.model} on device {args.device}: "
                         f"{type(error).__name__}: {error}") from None
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listening = socket.create_server((args.host, args.port), family=family)
    except (OSError, OverflowError) as error:
        raise SystemExit(f"server.py: cannot listen on {args.host}, port {args.port}: {error}; "
                         "end what listens there, or choose another port with --port") from None
    print(f"serving {args.model}: {engine.info['stage']}, {engine.model.n_params():,} parameters on {engine.device}",
          flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        config = uvicorn.Config(make_app(engine), log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
