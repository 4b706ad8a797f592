"""The gRPC server: each call becomes one HTTP request to Envoy's local front, with the caller's own key.

Who may, limits, balancing and metering happen there, once, as for everybody who speaks HTTP. Not here: what a call
means as JSON (`asked`, `answered`), what an error is called (`statuses`), the process (`main`).

A call ends its HTTP request with it: gRPC cancels the task of a call whose client went away or whose deadline is over,
and closing the request's connection is what frees the engine's slot.
"""

from __future__ import annotations

import asyncio
import traceback
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Awaitable, Callable, NoReturn, TypeVar

import aiohttp
import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from gonogo.gateway.rpc import answered, asked, statuses
from gonogo.gateway.rpc.events import Events, TooLarge
from gonogo.gateway.rpc.statuses import Failed, Failure
from gonogo.rpc.v1 import inference_pb2 as pb

LARGEST_MESSAGE_BYTES = 33 * 1024 * 1024
"""A request of 32 MiB and what is around it; the policy servers bound the JSON that it becomes."""
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
MAX_CALLS = 512
MAX_RECORDED = 50

# Of a call's metadata: the key, and what one line of the access log is to have in common with the other.
_HANDED_ON = ("authorization", "x-request-id", "x-forwarded-for", "user-agent")

Context = Any  # grpc.aio.ServicerContext: grpc-stubs 1.53 does not know all of its methods
M = TypeVar("M", bound=Message)


def local_front(socket: str) -> aiohttp.ClientSession:
    """The HTTP client of `InferenceService`. A connection per request: one that is kept may be closed in the moment
    of its next use, and a POST is not repeated.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=socket, limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


class InferenceService:
    """The methods of `gonogo.v1.Inference`. `tell` gets one record per kind of error, without what a client sent."""

    def __init__(self, front: aiohttp.ClientSession, *, tell: Callable[[str], None]) -> None:
        self._front = front
        self._tell = tell
        self._recorded: set[str] = set()

    async def generate(self, message: bytes, context: Context) -> None:
        """Writes the pieces as they come. `message`: a serialized `GenerateRequest`."""
        async with self._ended(context):
            what = asked.generate(_parsed(message, pb.GenerateRequest()))
            async with self._post(what, context) as answer:
                await _pass_on(answer, context)

    async def chat(self, message: bytes, context: Context) -> pb.ChatResponse:
        """One whole answer. `message`: a serialized `ChatRequest`."""
        async with self._ended(context):
            what = asked.chat(_parsed(message, pb.ChatRequest()))
            async with self._post(what, context) as answer:
                return answered.chat(await _body(answer))
        raise AssertionError("unreachable: what ends a call raises")

    async def list_models(self, _message: bytes, context: Context) -> pb.ListModelsResponse:
        """What `GET /v1/models` lists for this key."""
        async with self._ended(context), self._asking("GET", asked.MODELS, None, context) as answer:
            return answered.models(await _body(answer))
        raise AssertionError("unreachable: what ends a call raises")

    def _post(self, what: asked.Asked, context: Context) -> Any:
        return self._asking("POST", what.path, what.body, context)

    @asynccontextmanager
    async def _asking(
        self, method: str, path: str, body: bytes | None, context: Context
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, when it is 200. Raises `Failed`, aiohttp.ClientError."""
        left_s = context.time_remaining()
        timeout = aiohttp.ClientTimeout(total=left_s, sock_connect=2.0)
        headers = {**_handed_on(context), "accept": "application/json, text/event-stream"}
        if body is not None:
            headers["content-type"] = "application/json"
        url = f"http://gateway{path}"
        async with self._front.request(method, url, data=body, headers=headers, timeout=timeout) as answer:
            seen = {name.lower(): value for name, value in answer.headers.items()}
            context.set_trailing_metadata(tuple((name, value) for name, value in seen.items() if _of_limits(name)))
            if answer.status != 200:
                raise Failed(statuses.of_answer(answer.status, seen, await _body(answer)))
            yield answer

    @asynccontextmanager
    async def _ended(self, context: Context) -> AsyncIterator[None]:
        """Gives every error its status. Cancellation passes: whoever cancelled does not wait for an answer."""
        try:
            yield
        except asked.Wrong as error:
            await _abort(context, statuses.wrong(str(error)))
        except Failed as error:
            await _abort(context, error.failure)
        except TooLarge:
            await _abort(context, statuses.UNREADABLE)
        except asyncio.TimeoutError:
            await _abort(context, statuses.TOO_LATE)
        except aiohttp.ClientPayloadError:
            await _abort(context, statuses.CUT_OFF)
        except (aiohttp.ClientError, OSError) as error:
            self._note(f"{type(error).__name__}: the local front did not take a request, or dropped it")
            await _abort(context, statuses.NO_GATEWAY)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: an error of ours has a status, and is written down
            self._record(error)
            await _abort(context, statuses.BROKEN)

    def _record(self, error: Exception) -> None:
        """The place and the type; not the text, which may hold what a client sent."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        self._note(f"{type(error).__name__} in a call, which was ended\n{frames}".rstrip())

    def _note(self, text: str) -> None:
        if text not in self._recorded and len(self._recorded) < MAX_RECORDED:
            self._recorded.add(text)
            self._tell(text)


def handlers(service: InferenceService) -> dict[str, Any]:
    """Method name → handler, for `grpc.method_handlers_generic_handler`.

    Requests pass as bytes: gRPC would call one that is no message our fault (INTERNAL), and log each.
    """
    return {
        "Generate": grpc.unary_stream_rpc_method_handler(
            service.generate, response_serializer=pb.GenerateResponse.SerializeToString
        ),
        "Chat": grpc.unary_unary_rpc_method_handler(
            service.chat, response_serializer=pb.ChatResponse.SerializeToString
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            service.list_models, response_serializer=pb.ListModelsResponse.SerializeToString
        ),
    }


def _parsed(message: bytes, into: M) -> M:
    try:
        into.ParseFromString(message)
    except DecodeError:
        raise asked.Wrong("The message is not one of gonogo.v1's. Generate the client from its proto.") from None
    return into


async def _pass_on(answer: aiohttp.ClientResponse, context: Context) -> None:
    """Each event of the answer as a message, as it comes."""
    pieces, events = answered.Pieces(), Events()
    async for read in answer.content.iter_any():
        for event in events.feed(read):
            made = pieces.end() if event == answered.DONE else pieces.read(event)
            if made is not None:
                await context.write(made)
            if event == answered.DONE:
                return
    raise Failed(statuses.CUT_OFF)


async def _abort(context: Context, failure: Failure) -> NoReturn:
    known = dict(context.invocation_metadata() or ()).get("x-request-id")
    metadata = (*(context.trailing_metadata() or ()), *statuses.trailing(failure, known))
    abort: Callable[..., Awaitable[NoReturn]] = context.abort
    await abort(failure.code, failure.message, metadata)
    raise AssertionError("unreachable: abort raises")


def _handed_on(context: Context) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    # Of several headers of one name Envoy made one, joined by commas; policy refuses such an Authorization.
    return {name: value for name, value in metadata if name in _HANDED_ON and isinstance(value, str)}


def _of_limits(name: str) -> bool:
    """Whether this header says what is left of the key's limits."""
    return name.startswith("x-ratelimit-")


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises `Failed` for one that is larger than any answer."""
    read = bytearray()
    async for piece in answer.content.iter_any():
        read += piece
        if len(read) > LARGEST_ANSWER_BYTES:
            raise Failed(statuses.UNREADABLE)
    return bytes(read)
