// A gRPC client on grpc-js that does what it is told: the same orders and results as ../python/client.py, apart from what
// comes out of grpc-status-details-bin.

import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";

import grpc from "@grpc/grpc-js";

const order = JSON.parse(readFileSync(0, "utf8"));

const readable = (metadata) =>
  Object.keys(metadata?.getMap() ?? {}).flatMap((name) =>
    metadata.get(name).map((value) => [name, Buffer.isBuffer(value) ? value.toString("base64") : value]),
  );

const toBytes = (message) => (message.size === undefined ? Buffer.from(message) : Buffer.alloc(message.size, "x"));

const shown = (message) =>
  message.length > 65536 ? { size: message.length, sha256: createHash("sha256").update(message).digest("hex") } : message.toString();

const client = (gzip) =>
  new grpc.Client(order.target, grpc.credentials.createSsl(readFileSync(order.ca)), {
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    "grpc.enable_retries": 0,
    ...(gzip && { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip }),
  });
const clients = { plain: client(false), gzip: client(true) };

function metadataOf(call) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of call.metadata ?? []) {
    metadata.add(name, name.endsWith("-bin") ? Buffer.from(value, "base64") : value);
  }
  return metadata;
}

function perform(call) {
  const started = performance.now();
  const kind = call.method.split("/").pop();
  const [many, answers] = [/^(ClientStream|Bidi)/.test(kind), /^(ServerStream|Bidi)/.test(kind)];
  const messages = (call.messages ?? [""]).map(toBytes);
  const result = { initial: [], messages: [] };
  const options = { deadline: Date.now() + (call.timeout ?? 20) * 1000 };
  const begin = [call.method, (message) => message, (message) => message];
  return new Promise((resolve) => {
    const ended = ({ code, details, metadata }) =>
      resolve({ code, details, trailing: readable(metadata), ...result, seconds: (performance.now() - started) / 1000 });
    const took = (error, answer) => answer && result.messages.push(shown(answer));
    const using = call.gzip ? clients.gzip : clients.plain;
    const rpc = many
      ? answers
        ? using.makeBidiStreamRequest(...begin, metadataOf(call), options)
        : using.makeClientStreamRequest(...begin, metadataOf(call), options, took)
      : answers
        ? using.makeServerStreamRequest(...begin, messages[0], metadataOf(call), options)
        : using.makeUnaryRequest(...begin, messages[0], metadataOf(call), options, took);
    rpc.on("metadata", (metadata) => (result.initial = readable(metadata)));
    rpc.on("status", ended);
    rpc.on("error", () => {}); // `status` tells
    let next = 0;
    const send = () => (next < messages.length ? rpc.write(messages[next++]) : rpc.end());
    if (answers) {
      rpc.on("data", (answer) => {
        result.messages.push(shown(answer));
        if (call.lockstep) send();
      });
    }
    if (many && call.lockstep && messages.length) send();
    else if (many) for (let turn = 0; turn <= messages.length; turn++) send();
    if (call.cancel_after) setTimeout(() => rpc.cancel(), call.cancel_after * 1000);
  });
}

const results = new Array(order.calls.length);
const running = [];
for (const [index, call] of order.calls.entries()) {
  const done = perform(call).then((result) => (results[index] = result));
  running.push(done);
  if (!call.together) await done;
}
await Promise.all(running);
process.stdout.write(JSON.stringify(results));
clients.plain.close();
clients.gzip.close();
