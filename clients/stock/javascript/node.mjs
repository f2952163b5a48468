// Clients in Node.
//
//     node node.mjs connect | grpc-web | grpc | memoryd | grpc-js ADDRESS COUNTED_ADDRESS
//
// ADDRESS: HOST:PORT of HTTP, or of gRPC for `grpc` and `grpc-js`. COUNTED_ADDRESS: the same, with
// bytes counted on the way.

import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import * as memoryd from "memoryd/node";

import * as connect from "./connect.mjs";
import * as grpcJs from "./grpc_js.mjs";
import * as own from "./memoryd.mjs";
import { run } from "./scenario.mjs";

const [name, address, counted] = process.argv.slice(2);
const sessionId = `node-${name}`;
const gzip = { acceptCompression: [compressionGzip], sendCompression: compressionGzip };

function checksOver(create, httpVersion, compressed = "yes") {
  const [transport, other] = [address, counted].map((each) =>
    create({ baseUrl: `http://${each}`, httpVersion, ...gzip }),
  );
  return connect.checksOf(transport, other, compressed, sessionId);
}

const checks = {
  connect: () => checksOver(createConnectTransport, "1.1"),
  "grpc-web": () => checksOver(createGrpcWebTransport, "1.1"),
  grpc: () => checksOver(createGrpcTransport, "2", "requests"),
  memoryd: () => own.checksOf(memoryd, `http://${address}`, `http://${counted}`, "yes", sessionId),
  "grpc-js": () => grpcJs.checksOf(address, counted, sessionId),
};

await run(checks[name]());
process.exit(); // whatever connection is still open
