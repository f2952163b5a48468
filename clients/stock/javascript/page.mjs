// Clients in a page, which esbuild makes one script of; the page that loads it calls `clients.run`.

import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import * as memoryd from "memoryd/web";

import * as connect from "./connect.mjs";
import * as grpcWeb from "./grpc_web.mjs";
import * as own from "./memoryd.mjs";
import { run } from "./scenario.mjs";

// A page cannot compress what it sends, and its browser unpacks what comes, but for gRPC-Web.
const CHECKS = {
  connect: (url, counted, sessionId) =>
    connect.checksOf(
      createConnectTransport({ baseUrl: url }),
      createConnectTransport({ baseUrl: counted }),
      "answers",
      sessionId,
    ),
  "connect-grpc-web": (url, counted, sessionId) => ({
    ...connect.checksOf(createGrpcWebTransport({ baseUrl: url }), undefined, "no", sessionId),
    gzip: () => "no",
  }),
  "grpc-web": (url, counted, sessionId) => grpcWeb.checksOf(url, sessionId),
  memoryd: (url, counted, sessionId) => own.checksOf(memoryd, url, counted, "answers", sessionId),
};

globalThis.clients = {
  memoryd,
  names: Object.keys(CHECKS),
  /** The lines that a client says. */
  async run(name, url, counted) {
    const lines = [];
    await run(CHECKS[name](url, counted, `page-${name}`), (line) => lines.push(line));
    return lines;
  },
};
