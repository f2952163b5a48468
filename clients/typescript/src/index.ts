export { Code } from "@connectrpc/connect";

export { createClient, type MemorydClient } from "./client.js";
export { MemorydError, type Violation } from "./errors.js";
export type { CallDefaults, ConnectOptions } from "./transport.js";
export { resuming } from "./watch.js";
