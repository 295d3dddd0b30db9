"""An OpenTelemetry collector's receiver: OTLP over gRPC, with the messages of opentelemetry-proto.

Standard output, one JSON object a line: {"port"} once, then for each span {"event": "span", …} and {"event": "export"} for
each request, a refused one too. Standard input, one JSON object a line: how to answer from then on, any of
    status: a status instead of OK       sleep: seconds before the answer       reject: spans to call rejected
Usage: collector.py [--address 127.0.0.1:0] [--tls CERT KEY]
"""

import argparse
import json
import sys
import threading
import time
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

output = threading.Lock()


def say(**event):
    with output:
        print(json.dumps(event), flush=True)


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(listed):
    found = {attribute.key: value(attribute.value) for attribute in listed}
    assert len(found) == len(listed), "an attribute is there twice"
    return found


def span(resource, scope, found):
    return {
        "trace_id": found.trace_id.hex(),
        "span_id": found.span_id.hex(),
        "parent_id": found.parent_span_id.hex(),
        "trace_state": found.trace_state,
        "name": found.name,
        "kind": trace_pb2.Span.SpanKind.Name(found.kind),
        "start": found.start_time_unix_nano,
        "end": found.end_time_unix_nano,
        "attributes": attributes(found.attributes),
        "status": trace_pb2.Status.StatusCode.Name(found.status.code),
        "message": found.status.message,
        "flags": found.flags,
        "resource": attributes(resource.attributes),
        "scope": f"{scope.name} {scope.version}",
    }


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    behaviour = {}

    def Export(self, request, context):
        behaviour = Receiver.behaviour
        say(event="export", accepted="status" not in behaviour, agent=dict(context.invocation_metadata()).get("user-agent"))
        time.sleep(behaviour.get("sleep", 0))
        if "status" in behaviour:
            context.abort(next(code for code in grpc.StatusCode if code.value[0] == behaviour["status"]), "as told")
        for group in request.resource_spans:
            for scoped in group.scope_spans:
                for found in scoped.spans:
                    say(event="span", **span(group.resource, scoped.scope, found))
        rejected = behaviour.get("reject", 0)
        partial = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=rejected, error_message="as told" if rejected else "")
        return trace_service_pb2.ExportTraceServiceResponse(partial_success=partial)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="127.0.0.1:0")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    arguments = parser.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
    if arguments.tls:
        certificate, key = (open(path, "rb").read() for path in arguments.tls)
        port = server.add_secure_port(arguments.address, grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port(arguments.address)
    server.start()
    say(port=port)
    for line in sys.stdin:
        Receiver.behaviour = json.loads(line)
        say(event="told")
    server.stop(0)


main()
