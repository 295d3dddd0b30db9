// A gRPC service on grpc-js without a line of authentication: the methods Unary, ServerStream, ClientStream and Bidi of
// demo.v1.Echo, with the behaviours and the reports of ../python/upstream.py (all but `gzip`, which grpc-js has for clients only).
//
// Standard output, one JSON object a line: {"port"} once, then {"event": "call" | "end", …}. Ends when standard input closes.

import grpc from "@grpc/grpc-js";

const SERVICE = "/demo.v1.Echo/";

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

function metadataOf(pairs) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of pairs ?? []) {
    metadata.add(name, name.endsWith("-bin") ? Buffer.from(value, "base64") : value);
  }
  return metadata;
}

// One call: what it asked for, reported when it begins and when it ends.
class Call {
  constructor(method, rpc) {
    this.method = SERVICE + method;
    this.metadata = Object.keys(rpc.metadata.getMap()).flatMap((name) =>
      rpc.metadata.get(name).map((value) => [name, Buffer.isBuffer(value) ? value.toString("base64") : value]),
    );
    this.behaviour = JSON.parse(rpc.metadata.get("x-behaviour")[0] ?? "{}");
    this.sizes = [];
    const remaining = (rpc.getDeadline() - Date.now()) / 1000;
    this.remaining = Number.isFinite(remaining) ? remaining : null;
    this.peer = rpc.getPeer();
    const started = performance.now();
    say({ event: "call", method: this.method, metadata: this.metadata, remaining: this.remaining, peer: this.peer });
    this.over = () => {
      this.over = () => {};
      const seconds = (performance.now() - started) / 1000;
      say({ event: "end", method: this.method, metadata: this.metadata, seconds, messages: this.sizes.length });
    };
    rpc.on("cancelled", () => this.over());
    if (this.behaviour.initial) rpc.sendMetadata(metadataOf(this.behaviour.initial));
  }

  answer() {
    if (this.behaviour.size !== undefined) return Buffer.alloc(this.behaviour.size, "x");
    const { method, metadata, sizes, remaining, peer } = this;
    return Buffer.from(JSON.stringify({ method, metadata, sizes, remaining, peer }));
  }

  trailers() {
    const details = this.behaviour.details ? [["grpc-status-details-bin", this.behaviour.details]] : [];
    return metadataOf([...(this.behaviour.trailing ?? []), ...details]);
  }

  status() {
    return { code: this.behaviour.status ?? 0, details: this.behaviour.message ?? "", metadata: this.trailers() };
  }

  async unary(callback) {
    await pause(this.behaviour.sleep ?? 0);
    this.over();
    if (this.behaviour.status) callback(this.status());
    else callback(null, this.answer(), this.trailers());
  }

  stream(rpc) {
    this.over();
    // An error is the only way to end a stream of grpc-js with a status.
    if (this.behaviour.status) rpc.emit("error", this.status());
    else rpc.end(this.trailers());
  }
}

const handlers = {
  Unary(rpc, callback) {
    const call = new Call("Unary", rpc);
    call.sizes.push(rpc.request.length);
    call.unary(callback);
  },
  ClientStream(rpc, callback) {
    const call = new Call("ClientStream", rpc);
    rpc.on("data", (message) => call.sizes.push(message.length));
    rpc.on("end", () => call.unary(callback));
  },
  async ServerStream(rpc) {
    const call = new Call("ServerStream", rpc);
    for (let index = 0; index < (call.behaviour.count ?? 3); index++) {
      call.sizes.push(rpc.request.length);
      await pause(call.behaviour.sleep ?? 0);
      rpc.write(call.behaviour.size === undefined ? Buffer.concat([Buffer.from(`${index}:`), rpc.request]) : call.answer());
    }
    call.stream(rpc);
  },
  async Bidi(rpc) {
    const call = new Call("Bidi", rpc);
    rpc.on("error", () => {}); // of a call that was cancelled
    for await (const message of rpc.iterator({ destroyOnReturn: false })) {
      call.sizes.push(message.length);
      await pause(call.behaviour.sleep ?? 0);
      if (rpc.cancelled) return;
      rpc.write(message);
      if (call.sizes.length === call.behaviour.before_end) break;
    }
    call.stream(rpc);
  },
};

const kinds = { Unary: "unary", ClientStream: "clientStream", ServerStream: "serverStream", Bidi: "bidi" };
const server = new grpc.Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
for (const [method, handler] of Object.entries(handlers)) {
  const same = (message) => message;
  server.register(SERVICE + method, handler, same, same, kinds[method]);
}
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  say({ port });
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
