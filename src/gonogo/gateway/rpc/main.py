"""The gRPC server's process: `python -m gonogo.gateway.rpc.main --socket PATH --front PATH`.

`--socket` is where Envoy sends gRPC calls, `--front` the local front of the same Envoy, where they go on as HTTP. It
serves `gonogo.v1.Inference`, health and reflection. Started and watched by control; it needs neither control nor Envoy
to run. SIGTERM lets calls in flight go on for 2 s. It logs to stderr, which the launcher made a file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Sequence

import aiohttp
import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gonogo.gateway.rpc.server import LARGEST_MESSAGE_BYTES, MAX_CALLS, InferenceService, handlers, local_front
from gonogo.gateway.unix_socket import Place, SocketRefused
from gonogo.rpc.v1 import inference_pb2
from gonogo.runtimes.tell import tell

GRACE_S = 2.0
INFERENCE: str = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name
HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

_HEALTH: Any = health  # the stubs do not know what these modules have for asyncio
_REFLECTION: Any = reflection

_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # Envoy PINGs to notice a hung server; gRPC would take that for abuse and close the connection.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.keepalive_permit_without_calls", 1),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, which end the process with 0. Returns 2 when the socket's place is wrong."""
    parser = argparse.ArgumentParser(prog="gonogo-rpc", description="Speaks gRPC for the gateway.")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket that Envoy sends gRPC calls to")
    parser.add_argument("--front", type=Path, required=True, help="unix socket of Envoy's local front")
    given = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        asyncio.run(_serve(given.socket, given.front))
    except SocketRefused as error:
        tell(str(error))
        return 2
    return 0


def build_server(service: InferenceService, most_calls: int = MAX_CALLS) -> tuple[grpc.aio.Server, Any]:
    """A server with this service, health and reflection, bound to no socket yet; and its health.

    A call beyond `most_calls` at once is refused with RESOURCE_EXHAUSTED.
    """
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=most_calls)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(INFERENCE, handlers(service)),))
    state = _HEALTH.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    asked = grpc.stream_stream_rpc_method_handler(
        _REFLECTION.aio.ReflectionServicer((INFERENCE, HEALTH, *REFLECTION)).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in REFLECTION:  # v1 has the messages of v1alpha, under another name
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": asked}),))
    return server, state


async def _serve(socket: Path, front: Path) -> None:
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    async with local_front(str(front)) as client:
        await _listen(socket, client, asked_to_stop)


async def _listen(socket: Path, client: aiohttp.ClientSession, asked_to_stop: asyncio.Event) -> None:
    server, state = build_server(InferenceService(client, tell=tell))
    await state.set(INFERENCE, health_pb2.HealthCheckResponse.SERVING)
    place = Place.find(socket)
    server.add_insecure_port(f"unix:{place.temporary}")
    await server.start()
    door = place.open()
    tell(f"gRPC server listens (pid {os.getpid()})")
    await asked_to_stop.wait()
    door.close()
    await state.enter_graceful_shutdown()
    await server.stop(GRACE_S)
    tell("gRPC server stopped")


if __name__ == "__main__":
    sys.exit(main())
