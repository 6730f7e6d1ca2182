"""A client of the inference server: the stream of tokens as Python values, and a command line.

Run:         python client.py "The old man" --max-tokens 60
Use:         async for event in stream("http://127.0.0.1:9000", prompt="Q: Hi\\n"): ...

What it leaves out: retries (the caller knows better whether to ask again).
"""

import argparse
import asyncio
import json
from collections.abc import AsyncGenerator

import httpx

DEFAULT_URL = "http://127.0.0.1:9000"


class ModelServerError(Exception):
    """The server could not be reached, refused the request or broke off; the message says which."""


async def stream(url: str, prompt: str, *, request_id: str | None = None, client: httpx.AsyncClient | None = None,
                 **options) -> AsyncGenerator[dict]:
    """Events of POST /generate: {"token": ...} several times, then {"done": true, ...}.

    options: max_tokens, temperature, top_k, top_p, stop, seed, logprobs. Closing the iterator closes the connection,
    which stops the generation. client: reuse a connection pool. Raises ModelServerError.
    """
    headers = {"X-Request-Id": request_id} if request_id else {}
    here = any(f"//{host}" in url for host in ("127.0.0.1", "localhost", "[::1]"))     # no proxy leads to this machine
    own = client or httpx.AsyncClient(timeout=httpx.Timeout(120, connect=5), trust_env=not here)
    try:
        async with own.stream("POST", f"{url.rstrip('/')}/generate", json={"prompt": prompt, **options},
                              headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                raise ModelServerError(_reason(response))
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    yield event
                    if event.get("done"):
                        return
        raise ModelServerError(f"the model server at {url} broke off in the middle of its answer")
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise ModelServerError(f"the model server at {url} does not answer; start it with  make demo") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ModelServerError(f"{url!r} is no address of a model server ({error}); expected one such as "
                               f"{DEFAULT_URL}") from None
    except httpx.HTTPError as error:
        raise ModelServerError(f"the model server at {url} broke off: {type(error).__name__}") from error
    finally:
        if client is None:
            await own.aclose()


def _reason(response: httpx.Response) -> str:
    """What the server said was wrong."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    if response.status_code in (400, 422) and isinstance(detail, str):
        return detail
    return f"the model server at {response.url} answered with status {response.status_code}: {detail}"


async def _print_stream(args: argparse.Namespace) -> None:
    async for event in stream(args.url, args.prompt, max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed):
        if event.get("done"):
            print(f"\n[{event['finish_reason']}, {event['usage']['completion_tokens']} tokens, "
                  f"{event['usage']['completion_tokens'] / max(1e-9, event['timings']['decode']):.0f} tokens/s]")
        else:
            print(event["token"], end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Stream text from the inference server.")
    parser.add_argument("prompt", help="how the text begins")
    parser.add_argument("--url", default=DEFAULT_URL, help="the server (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="for the same text again")
    try:
        asyncio.run(_print_stream(parser.parse_args()))
    except ModelServerError as error:
        raise SystemExit(f"client.py: {error}") from None


if __name__ == "__main__":
    main()
