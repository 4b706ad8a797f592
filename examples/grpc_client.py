"""Asks a model over gRPC, and prints the answer as it is written.

    export GONOGO_API_KEY=gng_...          # as metadata, never on the command line: others see that
    python examples/grpc_client.py 127.0.0.1:8443 --ca STATE/tls/ca.crt "What is the capital of France?"

It needs grpcio, and the messages of gonogo.v1: `gonogo.rpc.v1` has them, or generate them for any language from
src/gonogo/rpc/proto/gonogo/v1/inference.proto. Ctrl-C cancels: the model stops then, too.
Exit code 0: answered; 1: an error, which it prints with its code; 2: nothing serves; 130: cancelled.
"""

from __future__ import annotations

import argparse
import os
import sys

import grpc

from gonogo.rpc.v1 import inference_pb2 as pb
from gonogo.rpc.v1 import inference_pb2_grpc


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask a model over gRPC.")
    parser.add_argument("address", help="host:port of the gateway")
    parser.add_argument("question")
    parser.add_argument("--ca", required=True, help="the CA's certificate: STATE/tls/ca.crt, as `gonogo up` prints it")
    parser.add_argument("--model", help="default: the first that this key may ask")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds for the whole answer")
    parser.add_argument("--tokens", type=int, default=64, help="the most tokens of the answer")
    parser.add_argument("--cancel-after", type=int, help="cancel after so many pieces, to see what happens")
    given = parser.parse_args()

    with open(given.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    key = (("authorization", f"Bearer {os.environ['GONOGO_API_KEY']}"),)
    with grpc.secure_channel(given.address, credentials) as channel:
        inference = inference_pb2_grpc.InferenceStub(channel)
        try:
            model = given.model or first_model(inference, key)
            return ask(inference, key, model, given)
        except grpc.RpcError as error:
            return tell(error)


def first_model(inference, key) -> str:
    listed = inference.ListModels(pb.ListModelsRequest(), metadata=key, timeout=10)
    return listed.models[0].id


def ask(inference, key, model: str, given: argparse.Namespace) -> int:
    message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=given.question)])
    request = pb.GenerateRequest(
        model=model,
        conversation=pb.Conversation(messages=[message]),
        sampling=pb.Sampling(max_tokens=given.tokens, temperature=0),
    )
    pieces = inference.Generate(request, metadata=key, timeout=given.deadline)
    try:
        for number, piece in enumerate(pieces, 1):
            print(piece.text, end="", flush=True)
            if piece.HasField("usage"):
                reads, writes = piece.usage.prompt_tokens, piece.usage.completion_tokens
                print(f"\n[{model}: {reads} tokens read, {writes} written]", file=sys.stderr)
            if number == given.cancel_after:
                pieces.cancel()
    except KeyboardInterrupt:
        pieces.cancel()
        return 130
    print()
    return 0


def tell(error: grpc.RpcError) -> int:
    if error.code() is grpc.StatusCode.CANCELLED:
        print("\n[cancelled]", file=sys.stderr)
        return 130
    print(f"\n[{error.code().name}: {error.details()}]", file=sys.stderr)
    trailing = dict(error.trailing_metadata() or ())
    for name in ("x-request-id", "retry-after"):
        if name in trailing:
            print(f"[{name}: {trailing[name]}]", file=sys.stderr)
    return 2 if error.code() is grpc.StatusCode.UNAVAILABLE else 1


if __name__ == "__main__":
    sys.exit(main())
