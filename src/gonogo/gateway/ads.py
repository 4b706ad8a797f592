"""The ADS server: gives Envoy its configuration over gRPC on a unix socket, and keeps what Envoy said of it.

Not here: what is answered to which request (`conversation`, pure) and what the configuration is (`translate`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from gonogo.facts.gateway import ResourceStatus
from gonogo.gateway.conversation import Conversation
from gonogo.gateway.snapshot import Snapshot, SnapshotUnreadable

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    # Envoy pings every few seconds to notice a control process that hangs; gRPC would call that abuse.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)


class _Stream:
    """One connected Envoy: its conversation, and what its two tasks tell each other."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.conversation = Conversation(snapshot)
        self.changed = asyncio.Event()
        self.superseded = asyncio.Event()
        self.writing = asyncio.Lock()


class AdsServer:
    """Serves one Envoy. All methods are to be called from the event loop that `start` ran in.

    `on_change` is called after every ACK, NACK, connect and disconnect. With `saved_path`, the snapshot is written
    there (mode 0600: it holds the private key) each time all of its types are acknowledged; `save_error` says why it
    could not be written the last time.
    """

    def __init__(
        self,
        socket_path: Path | str,
        *,
        saved_path: Path | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._socket_path = Path(socket_path)
        self._saved_path = saved_path
        self._on_change = on_change or (lambda: None)
        self._snapshot: Snapshot | None = None
        self._saved: dict[str, str] | None = None
        self.save_error: str | None = None
        self._stream: _Stream | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises `RuntimeError` when the socket cannot be bound."""
        server = grpc.aio.server(options=_OPTIONS)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(_Servicer(self), server)
        if server.add_insecure_port(f"unix:{self._socket_path}") == 0:
            raise RuntimeError(f"cannot listen on {self._socket_path}")
        await server.start()
        os.chmod(self._socket_path, 0o600)
        self._server = server

    async def stop(self) -> None:
        """Close the stream and the socket. Envoy keeps what it has and goes on serving."""
        if self._server is not None:
            await self._server.stop(grace=0)
            self._server = None
            self._stream = None

    def set_snapshot(self, snapshot: Snapshot) -> None:
        """From now on Envoy is to have this. Types whose content did not change are not pushed."""
        self._snapshot = snapshot
        if self._stream is not None:
            self._stream.changed.set()

    @property
    def snapshot(self) -> Snapshot | None:
        """What Envoy is to have; None until the first `set_snapshot`."""
        return self._snapshot

    def status(self) -> tuple[ResourceStatus, ...] | None:
        """Per resource type what is wanted and what Envoy said; None while no Envoy is connected."""
        if self._stream is None or self._snapshot is None:
            return None
        return self._stream.conversation.status(self._snapshot)

    async def serve(self, requests: AsyncIterator[discovery_pb2.DiscoveryRequest], context: Context) -> None:
        """One ADS stream, until Envoy goes. A newer stream ends an older one."""
        if self._stream is not None:
            self._stream.superseded.set()
        stream = _Stream(self._snapshot)
        self._stream = stream
        tasks = [
            asyncio.create_task(self._read(stream, requests, context)),
            asyncio.create_task(self._push(stream, context)),
            asyncio.create_task(stream.superseded.wait()),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._stream is stream:
                self._stream = None
            self._on_change()

    async def _read(
        self,
        stream: _Stream,
        requests: AsyncIterator[discovery_pb2.DiscoveryRequest],
        context: Context,
    ) -> None:
        async for request in requests:
            async with stream.writing:
                for response in stream.conversation.on_request(request):
                    await context.write(response)
            self._save_when_acked(stream)
            self._on_change()

    async def _push(self, stream: _Stream, context: Context) -> None:
        while True:
            await stream.changed.wait()
            async with stream.writing:
                stream.changed.clear()
                if self._snapshot is None:
                    continue
                for response in stream.conversation.on_snapshot(self._snapshot):
                    await context.write(response)
            self._save_when_acked(stream)

    def _save_when_acked(self, stream: _Stream) -> None:
        snapshot = self._snapshot
        if self._saved_path is None or snapshot is None or stream is not self._stream or stream.changed.is_set():
            return
        if snapshot.versions != self._saved and all(status.acked for status in stream.conversation.status(snapshot)):
            try:
                save_snapshot(self._saved_path, snapshot)
            except OSError as error:  # a full disk must not end the stream; the next acknowledgement tries again
                self.save_error = str(error)
                return
            self.save_error = None
            self._saved = snapshot.versions


class _Servicer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """The generated base class's names, led to `AdsServer.serve`."""

    def __init__(self, server: AdsServer) -> None:
        self._server = server

    async def StreamAggregatedResources(
        self, request_iterator: AsyncIterator[discovery_pb2.DiscoveryRequest], context: Context
    ) -> None:
        await self._server.serve(request_iterator, context)


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write atomically, mode 0600. Raises `OSError`."""
    temporary = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(snapshot.to_bytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_snapshot(path: Path) -> Snapshot | None:
    """The snapshot that was last acknowledged in full; None when there is none or it is not whole."""
    try:
        return Snapshot.from_bytes(path.read_bytes())
    except (FileNotFoundError, SnapshotUnreadable):
        return None
