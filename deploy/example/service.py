"""A service as people write it: users, and not a line about who may call. Doorward stands in front of it.

It listens on loopback only, answers grpc.health.v1 for Doorward's readiness, takes what Doorward tells it about the caller
from the metadata, and on SIGTERM finishes the calls it has. Messages are google.protobuf.Struct, so that nothing has to be
generated. Usage: service.py [ADDRESS], 127.0.0.1:50051 or unix:/run/app/grpc.sock
"""

import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

# How long calls in flight may take once SIGTERM has come; terminationGracePeriodSeconds has room for it.
GRACE = 20

USERS = {"1": "Ada", "2": "Grace", "3": "Barbara"}


def caller(context):
    """Who is calling. Whatever the client itself wrote under these names has not come this far."""
    metadata = dict(context.invocation_metadata())
    return {name: metadata[name] for name in ("user_id", "client_id", "roles", "permissions", "api_key_id") if name in metadata}


def answer(**fields):
    message = Struct()
    message.update(fields)
    return message


def get_user(request, context):
    name = USERS.get(request.fields["id"].string_value)
    if name is None:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such user")
    return answer(name=name, caller=caller(context))


def watch_users(request, context):
    """One user every `pause` seconds (a tenth without it), `count` times (three)."""
    pause = request.fields["pause"].number_value if "pause" in request.fields else 0.1
    count = int(request.fields["count"].number_value) if "count" in request.fields else 3
    for index in range(count):
        yield answer(name=list(USERS.values())[index % len(USERS)], index=index)
        if not context.is_active():
            return
        time.sleep(pause)


def delete_user(request, context):
    return answer(deleted=USERS.get(request.fields["id"].string_value, ""), caller=caller(context))


def main():
    def unary(behaviour):
        return grpc.unary_unary_rpc_method_handler(behaviour, Struct.FromString, Struct.SerializeToString)

    server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
    methods = {
        "GetUser": unary(get_user),
        "DeleteUser": unary(delete_user),
        "WatchUsers": grpc.unary_stream_rpc_method_handler(watch_users, Struct.FromString, Struct.SerializeToString),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("api.users.UserService", methods)])
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
    server.add_insecure_port(address)

    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    server.start()
    print(f"serving on {address}", flush=True)
    told_to_stop.wait()
    print("finishing the calls in flight", flush=True)
    server.stop(GRACE).wait()
    print("stopped", flush=True)


main()
