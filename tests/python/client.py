"""A gRPC client that does what it is told: a JSON object {target, ca, plaintext?, retries?, calls: […]} in a line of standard input, a JSON
list of results in a line of standard output. Further lines need only `calls`: all share one channel, in order; those with `together`
run at the same time as their neighbours.

A call:   {method, metadata: [[name, text]] (`-bin` values in base64), messages: [text | {size}] (default one empty message),
           timeout: seconds, gzip: bool, cancel_after: seconds, lockstep: bool (bidirectional: the next message only after the last answer)}
A result: {code, details, initial, trailing, messages: [text | {size, sha256}], reason, domain, error_metadata, retry_delay, seconds}
`retry_delay` is in seconds. `reason` and its neighbours come out of grpc-status-details-bin by Google's own parsers (grpc_status, error_details_pb2).
"""

import base64
import hashlib
import json
import queue
import sys
import threading
import time

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def readable(metadata):
    return [[name, base64.b64encode(value).decode() if isinstance(value, bytes) else value] for name, value in metadata or ()]


def to_bytes(message):
    return b"x" * message["size"] if isinstance(message, dict) else message.encode()


def shown(message):
    if len(message) > 65536:
        return {"size": len(message), "sha256": hashlib.sha256(message).hexdigest()}
    return message.decode()


def kind_of(method):
    name = method.rsplit("/", 1)[-1]
    return next((kind for kind in ("ServerStream", "ClientStream", "Bidi") if name.startswith(kind)), "Unary")


def perform(channel, call):
    started = time.monotonic()
    kind = kind_of(call["method"])
    metadata = tuple((name, base64.b64decode(value) if name.endswith("-bin") else value) for name, value in call.get("metadata", []))
    options = {"metadata": metadata, "timeout": call.get("timeout", 20), "wait_for_ready": False}
    if call.get("gzip"):
        options["compression"] = grpc.Compression.Gzip
    messages = [to_bytes(message) for message in call.get("messages", [""])]
    answers, turns = [], queue.Queue()

    def requests():
        for index, message in enumerate(messages):
            if call.get("lockstep") and index:
                turns.get()
            yield message

    def collect(rpc):
        for answer in rpc:
            answers.append(shown(answer))
            turns.put(None)

    invoke = {"Unary": channel.unary_unary, "ServerStream": channel.unary_stream, "ClientStream": channel.stream_unary, "Bidi": channel.stream_stream}
    function = invoke[kind](call["method"], None, None)
    try:
        if kind == "Unary":
            rpc = function.future(messages[0], **options)
        elif kind == "ServerStream":
            rpc = function(messages[0], **options)
        elif kind == "ClientStream":
            rpc = function.future(requests(), **options)
        else:
            rpc = function(requests(), **options)
        if "cancel_after" in call:
            threading.Timer(call["cancel_after"], rpc.cancel).start()
        if kind in ("Unary", "ClientStream"):
            answers.append(shown(rpc.result()))
        else:
            collect(rpc)
    except grpc.FutureCancelledError:
        pass
    except grpc.RpcError as error:
        rpc = error if isinstance(error, grpc.Call) else rpc
    if call.get("cancel_after") and rpc.code() is None:
        return {"code": 1, "messages": answers}
    result = {
        "code": rpc.code().value[0],
        "details": rpc.details(),
        "initial": readable(rpc.initial_metadata()),
        "trailing": readable(rpc.trailing_metadata()),
        "messages": answers,
        "seconds": time.monotonic() - started,
    }
    try:
        status = rpc_status.from_call(rpc) if result["code"] else None
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                result |= {"reason": info.reason, "domain": info.domain, "error_metadata": dict(info.metadata)}
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                result["retry_delay"] = retry.retry_delay.ToTimedelta().total_seconds()
    except (ValueError, DecodeError):
        # Details of the service's own making need not be a google.rpc.Status that agrees with the status.
        pass
    return result


def connect(order):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", int(order.get("retries", False)))]
    if order.get("plaintext"):
        return grpc.insecure_channel(order["target"], options)
    read = lambda name: open(order[name], "rb").read() if order.get(name) else None
    credentials = grpc.ssl_channel_credentials(read("ca"), read("key"), read("certificate"))
    return grpc.secure_channel(order["target"], credentials, options)


def perform_all(channel, calls):
    results, threads = [None] * len(calls), []

    def run(index, call):
        results[index] = perform(channel, call)

    for index, call in enumerate(calls):
        if call.get("together"):
            threads.append(threading.Thread(target=run, args=(index, call)))
            threads[-1].start()
        else:
            run(index, call)
    for thread in threads:
        thread.join()
    return results


def main():
    channel = None
    for line in sys.stdin:
        order = json.loads(line)
        channel = channel or connect(order)
        print(json.dumps(perform_all(channel, order["calls"])), flush=True)


main()
