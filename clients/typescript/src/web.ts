import { createConnectTransport } from "@connectrpc/connect-web";

import { createClient, type MemorydClient } from "./client.js";
import { checkCredential, type ConnectOptions } from "./transport.js";

export * from "./index.js";

/**
 * A client for pages, of the HTTP port of a server. Of another origin than the page's, the server has
 * to allow the page's by `MEMORYD_HTTP_ALLOWED_ORIGINS`.
 */
export function connect(baseUrl: string, options: ConnectOptions = {}): MemorydClient {
  checkCredential(baseUrl, options);
  return createClient(createConnectTransport({ baseUrl, useBinaryFormat: true }), options);
}
