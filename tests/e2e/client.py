"""The client inside the cluster, in a pod of its own. One order in JSON comes on standard input, one answer in JSON goes out.

    {"do": "call", "target", "method", "request"?, "metadata"?, "token_file"?}   the status, the reason, the answers
    {"do": "reach", "host", "port"}                   whether a TCP connection is taken
    {"do": "certificate", "host", "port"}             SHA-256 of the certificate that is shown there
    {"do": "load", "target", "channels", "each", "streams", "metadata"?, "token_file"?}
        Calls without a pause, `each` at once on each of the channels, and `streams` on each that last some seconds, until a
        line comes on standard input. Every channel keeps one connection as long as it lives.
Methods whose name begins with Watch are server streams. Certificates are verified by /e2e/ca.crt, as `users`.
"""

import collections
import hashlib
import json
import socket
import ssl
import sys
import threading
import time

import grpc
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2


def channel(target):
    with open("/e2e/ca.crt", "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    # A connection of its own for each channel; otherwise nothing but defaults, so no retry that a service would have to ask for.
    options = [("grpc.ssl_target_name_override", "users"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(target, credentials, options)


def metadata(order):
    found = [tuple(pair) for pair in order.get("metadata", [])]
    if "token_file" in order:
        with open(order["token_file"]) as file:
            found.append(("authorization", f"Bearer {file.read().strip()}"))
    return found


def begin(channel, method, request, metadata, timeout):
    """The answers of a call, as an iterator."""
    message = Struct()
    message.update(request)
    coders = (Struct.SerializeToString, Struct.FromString)
    if method.rsplit("/", 1)[-1].startswith("Watch"):
        return channel.unary_stream(method, *coders)(message, metadata=metadata, timeout=timeout)
    return iter([channel.unary_unary(method, *coders)(message, metadata=metadata, timeout=timeout)])


def reason(error):
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            if status_pb2.Status.FromString(value).details[0].Unpack(info):
                return info.reason
    return None


def plain(struct):
    return {name: plain(value.struct_value) if value.HasField("struct_value") else value.string_value or value.number_value for name, value in struct.fields.items()}


def call(order):
    with channel(order["target"]) as connection:
        answers = []
        try:
            for answer in begin(connection, order["method"], order.get("request", {}), metadata(order), order.get("timeout", 10)):
                answers.append(plain(answer))
            return {"code": "OK", "answers": answers}
        except grpc.RpcError as error:
            return {"code": error.code().name, "reason": reason(error), "message": error.details(), "answers": answers}


def reach(order):
    try:
        socket.create_connection((order["host"], order["port"]), timeout=3).close()
        return {"reached": True}
    except OSError as error:
        return {"reached": False, "error": str(error)}


def certificate(order):
    context = ssl.create_default_context(cafile="/e2e/ca.crt")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((order["host"], order["port"]), timeout=5) as raw:
        with context.wrap_socket(raw, server_hostname="users") as tls:
            return {"sha256": hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest()}


class Load:
    def __init__(self, order):
        self.order, self.stop, self.lock = order, threading.Event(), threading.Lock()
        self.passed, self.failed, self.times = collections.Counter(), [], []

    def run(self):
        channels = [channel(self.order["target"]) for _ in range(self.order["channels"])]
        threads = []
        for connection in channels:
            threads += [threading.Thread(target=self.repeat, args=(connection, "GetUser", {"id": "1"})) for _ in range(self.order["each"])]
            stream = {"count": 20, "pause": 0.2}
            threads += [threading.Thread(target=self.repeat, args=(connection, "WatchUsers", stream)) for _ in range(self.order["streams"])]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        sys.stdin.readline()
        self.stop.set()
        for thread in threads:
            thread.join()
        for connection in channels:
            connection.close()
        times = sorted(self.times)
        return {
            "seconds": round(time.monotonic() - began, 1),
            "passed": self.passed,
            "failed": self.failed[:20],
            "failures": len(self.failed),
            "p50_ms": round(times[len(times) // 2] * 1000, 1),
            "p99_ms": round(times[len(times) * 99 // 100] * 1000, 1),
        }

    def repeat(self, connection, name, request):
        while not self.stop.is_set():
            began = time.monotonic()
            received = 0
            try:
                for _ in begin(connection, f"/api.users.UserService/{name}", request, metadata(self.order), 60):
                    received += 1
                with self.lock:
                    # A stream that ends early without an error would be a loss as well.
                    if received == request.get("count", 1):
                        self.passed[name] += 1
                        if name == "GetUser":
                            self.times.append(time.monotonic() - began)
                    else:
                        self.failed.append({"method": name, "code": "SHORT", "received": received})
            except grpc.RpcError as error:
                failure = {"method": name, "code": error.code().name, "reason": reason(error), "message": error.details(), "received": received}
                with self.lock:
                    self.failed.append(failure | {"after_ms": round((time.monotonic() - began) * 1000), "at": time.time()})
                time.sleep(0.05)


def main():
    order = json.loads(sys.stdin.readline())
    does = {"call": call, "reach": reach, "certificate": certificate, "load": lambda order: Load(order).run()}
    print(json.dumps(does[order["do"]](order)), flush=True)


main()
