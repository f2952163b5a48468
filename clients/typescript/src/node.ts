import { compressionGzip, createConnectTransport } from "@connectrpc/connect-node";

import { createClient, type MemorydClient } from "./client.js";
import { checkCredential, type ConnectOptions } from "./transport.js";

export * from "./index.js";

/** A client for Node, of the HTTP port of a server: `connect("http://localhost:50052")`. */
export function connect(baseUrl: string, options: ConnectOptions = {}): MemorydClient {
  checkCredential(baseUrl, options);
  const transport = createConnectTransport({
    baseUrl,
    httpVersion: "1.1",
    acceptCompression: [compressionGzip],
    sendCompression: compressionGzip,
  });
  return createClient(transport, options);
}
