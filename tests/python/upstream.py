"""A gRPC service without a line of authentication: what Doorward stands in front of.

Serves every method of every service; the kind of call follows from the method's name (`ServerStream…`, `ClientStream…`,
`Bidi…`, otherwise unary), messages are bytes. What the service does is asked for in the metadata `x-behaviour`, a JSON object:
    sleep: seconds before the answer           status, message: the status it ends with
    details: base64 for grpc-status-details-bin initial, trailing: lists of [name, text], `-bin` values in base64
    size: bytes of the answer                  count: answers of a ServerStream      abort: raise, as a bug would
    gzip: answer compressed                    before_end: answers sent before the status
A unary or client-streaming answer is a JSON report of what reached the service (unless `size` is given); streams echo.

Standard output, one JSON object a line: {"port"} once, then {"event": "call" | "end", …} as calls come and go.
SIGTERM stops the service: calls in flight have --grace seconds to finish. --option is a channel argument whose value is a number.
--reflection answers for the services of a descriptor set, as this version: v1 or v1alpha, whose messages are the same.
Usage: upstream.py [--address 127.0.0.1:0 | unix:/path] [--tls CERT KEY CA] [--health] [--grace SECONDS] [--option NAME=VALUE]…
    [--reflection VERSION DESCRIPTOR_SET]
"""

import argparse
import base64
import json
import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

output = threading.Lock()


def say(**event):
    with output:
        print(json.dumps(event), flush=True)


def readable(name, value):
    return [name, base64.b64encode(value).decode() if isinstance(value, bytes) else value]


def pairs(listed):
    return tuple((name, base64.b64decode(value) if name.endswith("-bin") else value) for name, value in listed)


class Call:
    """One call: what it asked for, reported when it begins and when it ends."""

    def __init__(self, method, context):
        self.method, self.context = method, context
        self.metadata = [readable(name, value) for name, value in context.invocation_metadata()]
        self.behaviour = json.loads(dict(self.metadata).get("x-behaviour", "{}"))
        self.sizes = []
        remaining = context.time_remaining()
        self.remaining = remaining if remaining is not None and remaining < 10**7 else None
        started = time.monotonic()
        say(event="call", method=method, metadata=self.metadata, remaining=self.remaining, peer=context.peer())
        context.add_callback(
            lambda: say(event="end", method=method, metadata=self.metadata, seconds=time.monotonic() - started, messages=len(self.sizes))
        )
        if self.behaviour.get("initial"):
            context.send_initial_metadata(pairs(self.behaviour["initial"]))
        if self.behaviour.get("gzip"):
            context.set_compression(grpc.Compression.Gzip)

    def received(self, messages):
        for message in messages:
            self.sizes.append(len(message))
            yield message

    def answer(self):
        if "size" in self.behaviour:
            return b"x" * self.behaviour["size"]
        report = {"method": self.method, "metadata": self.metadata, "sizes": self.sizes, "remaining": self.remaining, "peer": self.context.peer()}
        return json.dumps(report).encode()

    def pause(self):
        until = time.monotonic() + self.behaviour.get("sleep", 0)
        while self.context.is_active() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))

    def finish(self):
        if self.behaviour.get("abort"):
            raise RuntimeError("a bug of the service")
        trailing = list(pairs(self.behaviour.get("trailing", [])))
        if "details" in self.behaviour:
            trailing.append(("grpc-status-details-bin", base64.b64decode(self.behaviour["details"])))
        if trailing:
            self.context.set_trailing_metadata(tuple(trailing))
        if "status" in self.behaviour:
            code = next(code for code in grpc.StatusCode if code.value[0] == self.behaviour["status"])
            self.context.set_code(code)
            self.context.set_details(self.behaviour.get("message", ""))


class Anything(grpc.GenericRpcHandler):
    """Handles every method there is, apart from the health service's."""

    def service(self, details):
        method = details.method
        name = method.rsplit("/", 1)[-1]
        if method.startswith("/grpc."):
            return None

        def one_answer(messages, context):
            call = Call(method, context)
            for _ in call.received(messages):
                pass
            call.pause()
            call.finish()
            return call.answer()

        def server_stream(message, context):
            call = Call(method, context)
            for index in range(call.behaviour.get("count", 3)):
                for _ in call.received([message]):
                    call.pause()
                yield call.answer() if "size" in call.behaviour else b"%d:" % index + message
            call.finish()

        def bidirectional(messages, context):
            call = Call(method, context)
            for message in call.received(messages):
                call.pause()
                yield message
                if len(call.sizes) == call.behaviour.get("before_end"):
                    break
            call.finish()

        if name.startswith("ServerStream"):
            return grpc.unary_stream_rpc_method_handler(server_stream)
        if name.startswith("ClientStream"):
            return grpc.stream_unary_rpc_method_handler(one_answer)
        if name.startswith("Bidi"):
            return grpc.stream_stream_rpc_method_handler(bidirectional)
        return grpc.unary_unary_rpc_method_handler(lambda message, context: one_answer([message], context))


def reflect(server, version, path):
    descriptors, pool = descriptor_pb2.FileDescriptorSet.FromString(open(path, "rb").read()), descriptor_pool.DescriptorPool()
    for file in descriptors.file:
        pool.Add(file)
    services = [f"{file.package}.{service.name}" for file in descriptors.file for service in file.service]
    servicer = reflection.ReflectionServicer(services, pool)
    info = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(f"grpc.reflection.{version}.ServerReflection", {"ServerReflectionInfo": info})
    server.add_generic_rpc_handlers((handler,))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="127.0.0.1:0")
    parser.add_argument("--tls", nargs=3, metavar=("CERT", "KEY", "CA"))
    parser.add_argument("--health", action="store_true")
    parser.add_argument("--grace", type=float, default=0)
    parser.add_argument("--reflection", nargs=2, metavar=("VERSION", "DESCRIPTOR_SET"))
    parser.add_argument("--option", action="append", default=[])
    arguments = parser.parse_args()
    options = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1, "grpc.so_reuseport": 0}
    options.update((name, int(value)) for name, value in (option.split("=") for option in arguments.option))
    server = grpc.server(futures.ThreadPoolExecutor(64), options=list(options.items()))
    server.add_generic_rpc_handlers((Anything(),))
    if arguments.reflection:
        reflect(server, *arguments.reflection)
    if arguments.health:
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if arguments.tls:
        certificate, key, ca = (open(path, "rb").read() for path in arguments.tls)
        credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
        port = server.add_secure_port(arguments.address, credentials)
    else:
        port = server.add_insecure_port(arguments.address)
    server.start()
    say(port=port)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    while not stop.wait(0.2):
        pass
    server.stop(arguments.grace).wait()


main()
