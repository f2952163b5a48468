// One turn of an agent: retrieve what matters, answer, store what was learned.
//
//     node agent.mjs localhost:50051 [SESSION]

import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [target, sessionId = "ada"] = process.argv.slice(2);
const definition = protoLoader.loadSync("memoryd/v1/memory.proto", {
  includeDirs: [fileURLToPath(new URL("../../protos", import.meta.url))],
  keepCase: true,
  enums: String,
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { MemoryService } = grpc.loadPackageDefinition(definition).memoryd.v1;

const client = new MemoryService(target, grpc.credentials.createInsecure());

/** Call a method with a deadline of five seconds. */
function call(method, request) {
  const deadline = new Date(Date.now() + 5_000);
  return promisify(client[method]).call(client, request, { deadline });
}

try {
  const said = "I prefer e-mail over the phone.";
  const stored = await call("StoreMemory", {
    session_id: sessionId,
    content: said,
    content_type: "CONTENT_TYPE_PREFERENCE",
    importance: 0.8,
    never_expires: true,
    // The same id again, after a lost answer, stores nothing twice.
    request_id: randomUUID(),
  });
  console.log(`stored: ${stored.outcome}`);

  const asked = "Shall we reach you by e-mail or by phone?";
  const { results } = await call("RetrieveMemories", {
    session_id: sessionId,
    query: asked,
    limit: 5,
  });
  for (const { memory } of results) {
    console.log(`remembered: ${memory.content}`);
  }
} catch (error) {
  // The message names the field and the remedy.
  console.error(`${grpc.status[error.code] ?? error.name}: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
