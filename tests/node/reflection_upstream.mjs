// demo.v1.Greeter on grpc-js, with reflection of one version: `reflection_upstream.mjs v1|v1alpha`. It authenticates nobody.
// Prints its port. Ends when standard input closes.

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";

const [version] = process.argv.slice(2);
const definition = loader.loadSync(new URL("../../proto/demo/v1/greeter.proto", import.meta.url).pathname);
const { Greeter } = grpc.loadPackageDefinition(definition).demo.v1;

const server = new grpc.Server();
server.addService(Greeter.service, {
  SayHello: ({ request, metadata }, callback) =>
    callback(null, { message: `Hello, ${request.name}! You are ${metadata.get("user_id")}${metadata.get("client_id")}.` }),
  DeleteGreeting: (_, callback) => callback(null, { message: "" }),
});
// The package knows both versions; a service as one meets them has often only one.
new ReflectionService(definition).addToServer({
  addService: (service, methods) => {
    const [{ path }] = Object.values(service);
    if (path.startsWith(`/grpc.reflection.${version}.`)) server.addService(service, methods);
  },
});
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
process.stdin.on("end", () => process.exit(0)).resume();
