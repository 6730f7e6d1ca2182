"""The OpenAI-compatible face of the server: /v1/models, /v1/completions and /v1/chat/completions, streamed or whole.

Use:         any OpenAI client with base_url="http://127.0.0.1:9000/v1" and any api_key

Chat messages become the chat prompt of prompts.py. These small models know one question at a time, so the last user
message is the question; system messages and earlier turns are refused rather than silently dropped.

What it leaves out: several answers at once (n > 1), tools, images, penalties.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field
from sse_starlette.sse import EventSourceResponse

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
    seed: int | None = None
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


def router(engine: Engine, stream: Callable[[Request], AsyncIterator[Piece | Finished]]) -> APIRouter:
    """The three routes over one engine; stream(request) gives its events."""
    routes = APIRouter(prefix="/v1")
    started = int(time.time())

    @routes.get("/models")
    def models() -> dict:
        return {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "created": started, "owned_by": "you"}]}

    @routes.post("/completions")
    async def completions(body: CompletionBody):
        def choice(text: str, reason: str | None) -> dict:
            return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}

        return await answer(body, body.prompt, "cmpl", "text_completion", "text_completion", choice, choice)

    @routes.post("/chat/completions")
    async def chat(body: ChatBody):
        def whole(text: str, reason: str | None) -> dict:
            return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason, "logprobs": None}

        def chunk(text: str, reason: str | None) -> dict:
            return {"index": 0, "delta": {} if reason else {"role": "assistant", "content": text}, "finish_reason": reason}

        try:
            prompt = body.prompt()
        except BadRequest as error:
            raise HTTPException(400, str(error)) from None
        return await answer(body, prompt, "chatcmpl", "chat.completion", "chat.completion.chunk", whole, chunk)

    async def answer(body: Body, prompt: str, prefix: str, kind: str, chunk_kind: str, whole: Callable, chunk: Callable):
        request = body.request(prompt)
        try:
            engine.prepare(request)
        except BadRequest as error:
            raise HTTPException(400, str(error)) from None
        head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL_NAME}

        if not body.stream:
            text = ""
            async for event in stream(request):
                if isinstance(event, Piece):
                    text += event.text
                else:
                    usage = {"prompt_tokens": event.prompt_tokens, "completion_tokens": event.completion_tokens,
                             "total_tokens": event.prompt_tokens + event.completion_tokens}
                    return {**head, "object": kind, "choices": [whole(text.strip(), event.reason)], "usage": usage}

        async def events() -> AsyncIterator[dict]:
            async for event in stream(request):
                made = chunk(event.text, None) if isinstance(event, Piece) else chunk("", event.reason)
                yield {"data": json.dumps({**head, "object": chunk_kind, "choices": [made]})}
            yield {"data": "[DONE]"}

        return EventSourceResponse(events())

    return routes
