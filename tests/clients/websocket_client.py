"""The `websockets` package against a vendor that echoes; one line a check.

usage: websocket_client.py URL
"""

import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def echo(url):
    with connect(url, subprotocols=["chat"], proxy=None) as socket:
        assert socket.subprotocol == "chat", socket.subprotocol
        for message in ("hello", "你好", b"\x00\xff" * 10, "x" * 200_000):
            socket.send(message)
            assert socket.recv(timeout=30) == message, message[:20]
        assert socket.ping().wait(30), "no pong"


def close_code(url):
    with connect(url, proxy=None) as socket:
        socket.send("!close 4001")
        try:
            socket.recv(timeout=30)
            raise AssertionError("still open")
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4001, closed


def drop(url):
    with connect(url, proxy=None) as socket:
        socket.send("!drop")
        try:
            socket.recv(timeout=30)
            raise AssertionError("still open")
        except ConnectionClosed as closed:
            assert closed.rcvd is None, closed


for check in (echo, close_code, drop):
    check(sys.argv[1])
    print("ok", check.__name__, flush=True)
