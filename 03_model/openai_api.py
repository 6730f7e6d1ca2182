"""The OpenAI-compatible face of the server: /v1/models, /v1/completions and /v1/chat/completions, streamed or whole.

Use:         any OpenAI client with base_url="http://127.0.0.1:9000/v1" and any api_key

Chat messages become the chat prompt of prompts.py. These small models know one question at a time, so the last user
message is the question; system messages and earlier turns are refused rather than silently dropped.

What it leaves out: several answers at once (n > 1), tools, images, penalties.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from fastapi import APIRouter, HTTPException
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from engine import BadRequest, Engine, Finished, Piece, Request
from prompts import chat_trace, prompt_text

MODEL_NAME = "query-to-flop"


class Message(BaseModel):
    """One chat message."""

    role: str
    content: str


class Body(BaseModel):
    """What both calls share. Unknown fields are ignored, as clients send many."""

    model: str = MODEL_NAME
    max_tokens: int = Field(128, ge=1)
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: list[str] | str | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False

    def request(self, prompt: str) -> Request:
        """The engine's request for a prompt."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Request(prompt, self.max_tokens, self.temperature, 0, self.top_p, tuple(stops), self.seed)


class CompletionBody(Body):
    """The body of /v1/completions."""

    prompt: str


class ChatBody(Body):
    """The body of /v1/chat/completions."""

    messages: list[Message]

    def prompt(self) -> str:
        """The chat prompt. Raises BadRequest for conversations that these models do not know."""
        if len(self.messages) != 1 or self.messages[0].role != "user":
            raise BadRequest("this model takes exactly one message, of role user: it has learned single questions only")
        return prompt_text(chat_trace(self.messages[0].content))


async def begin_at_text(events: AsyncGenerator[Piece | Finished]) -> AsyncGenerator[Piece | Finished]:
    """The events without the white space before the first word, which stands between "A:" and the answer."""
    begun = False
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Piece) and not begun:
                event = Piece(event.text.lstrip(), event.tokens)
                begun = bool(event.text)
            if begun or isinstance(event, Finished):
                yield event


def router(engine: Engine, stream: Callable[[Request], AsyncGenerator[Piece | Finished]]) -> APIRouter:
    """The three routes over one engine; stream(request) gives its events."""
    routes = APIRouter(prefix="/v1")
    started = int(time.time())

    @routes.get("/models")
    def models() -> dict:
        return {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "created": started, "owned_by": "you"}]}

    @routes.post("/completions")
    async def completions(body: CompletionBody, http: HTTPRequest):
        def choice(text: str, reason: str | None) -> dict:
            return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}

        return await answer(body, http, body.prompt, "cmpl", "text_completion", "text_completion", choice, choice)

    @routes.post("/chat/completions")
    async def chat(body: ChatBody, http: HTTPRequest):
        def whole(text: str, reason: str | None) -> dict:
            return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason, "logprobs": None}

        def chunk(text: str, reason: str | None) -> dict:
            return {"index": 0, "delta": {} if reason else {"role": "assistant", "content": text}, "finish_reason": reason}

        try:
            prompt = body.prompt()
        except BadRequest as error:
            raise HTTPException(400, str(error)) from None
        return await answer(body, http, prompt, "chatcmpl", "chat.completion", "chat.completion.chunk", whole, chunk)

    async def answer(body: Body, http: HTTPRequest, prompt: str, prefix: str, kind: str, chunk_kind: str,
                     whole: Callable, chunk: Callable):
        request = body.request(prompt)
        try:
            await run_in_threadpool(engine.prepare, request)   # a long prompt must not hold up the event loop
        except BadRequest as error:
            raise HTTPException(400, str(error)) from None
        said = begin_at_text(stream(request)) if prefix == "chatcmpl" else stream(request)
        head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL_NAME}

        if not body.stream:
            text = ""
            async with aclosing(said):
                async for event in said:
                    if isinstance(event, Finished):
                        usage = {"prompt_tokens": event.prompt_tokens, "completion_tokens": event.completion_tokens,
                                 "total_tokens": event.prompt_tokens + event.completion_tokens}
                        return {**head, "object": kind, "choices": [whole(text, event.reason)], "usage": usage}
                    text += event.text
                    if await http.is_disconnected():           # nobody waits for the rest
                        return Response(status_code=499)

        async def events() -> AsyncGenerator[dict]:
            async for event in said:
                made = chunk(event.text, None) if isinstance(event, Piece) else chunk("", event.reason)
                yield {"data": json.dumps({**head, "object": chunk_kind, "choices": [made]})}
            yield {"data": "[DONE]"}

        return EventSourceResponse(events())

    return routes
