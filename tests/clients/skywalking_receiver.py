"""A SkyWalking backend on the message classes of SkyWalking's own agent: prints each segment as a line of JSON.

Prints `ready PORT` first. Ends when its standard input does.
"""

import json
import sys
from concurrent import futures

import grpc
from google.protobuf.json_format import MessageToDict
from skywalking.protocol.common.Command_pb2 import Commands
from skywalking.protocol.language_agent.Tracing_pb2_grpc import (
    TraceSegmentReportServiceServicer,
    add_TraceSegmentReportServiceServicer_to_server,
)
from skywalking.protocol.management.Management_pb2_grpc import (
    ManagementServiceServicer,
    add_ManagementServiceServicer_to_server,
)


class Segments(TraceSegmentReportServiceServicer):
    def collect(self, request_iterator, context):
        token = dict(context.invocation_metadata()).get("authentication", "")
        for segment in request_iterator:
            told = MessageToDict(segment, always_print_fields_with_no_presence=True)
            print(json.dumps({"token": token, "segment": told}), flush=True)
        return Commands()


class Management(ManagementServiceServicer):
    """The agent will not report before it has told its properties."""

    def reportInstanceProperties(self, request, context):
        return Commands()

    def keepAlive(self, request, context):
        return Commands()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
add_TraceSegmentReportServiceServicer_to_server(Segments(), server)
add_ManagementServiceServicer_to_server(Management(), server)
wanted = sys.argv[1] if len(sys.argv) > 1 else "0"
port = server.add_insecure_port(f"127.0.0.1:{wanted}")
server.start()
print(f"ready {port}", flush=True)
sys.stdin.read()
server.stop(0)
