"""gRPC's own Python client against a vendor that sends messages back; one line a check.

usage: grpc_client.py HOST:PORT
"""

import sys

import grpc


def unary(channel):
    call = channel.unary_unary("/pkg.Service/Method")
    assert call(b"hello", timeout=30) == b"hello"
    assert call(b"x" * 1_000_000, timeout=30) == b"x" * 1_000_000


def status(channel):
    call = channel.unary_unary("/pkg.Service/Method")
    try:
        call(b"hello", timeout=30, metadata=[("x-mock-grpc-status", "7")])
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
        assert error.details() == "the script answers so", error


def streams(channel):
    call = channel.stream_stream("/pkg.Service/Chat")
    sent = [f"message {number}".encode() for number in range(100)]
    assert list(call(iter(sent), timeout=30)) == sent


def deadline(channel):
    call = channel.unary_unary("/pkg.Service/Method")
    try:
        call(b"hello", timeout=0.3, metadata=[("x-mock-fault", "black-hole")])
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


with grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
    for check in (unary, status, streams, deadline):
        check(channel)
        print("ok", check.__name__, flush=True)
