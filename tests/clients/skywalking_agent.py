"""SkyWalking's own agent around an ordinary program.

`upstream BACKEND`          an HTTP server that answers every POST; prints `ready PORT`, ends with its standard input
`client BACKEND URL BODY`   sends one request and prints its status
"""

import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from skywalking import agent, config

role, backend = sys.argv[1:3]
config.init(
    agent_collector_backend_services=backend,
    agent_name=f"python-{role}",
    agent_instance_name="one",
    agent_protocol="grpc",
    agent_logging_level="CRITICAL",
    agent_meter_reporter_active=False,
    agent_log_reporter_active=False,
    agent_profile_active=False,
)
agent.start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", "0")))
        body = b'{"object":"chat.completion","model":"m","choices":[]}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if role == "upstream":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ready {server.server_port}", flush=True)
    sys.stdin.read()
else:
    url, body = sys.argv[3:5]
    request = urllib.request.Request(url, data=body.encode(), headers={"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        print(f"status {response.status}", flush=True)
        response.read()
    # The agent reports what it has as the program ends.
