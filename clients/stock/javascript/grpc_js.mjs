// The checks of @grpc/grpc-js over the protos, loaded at run time.

import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

import { assert, DEADLINE_MS, LONG, WRONG } from "./scenario.mjs";

const GZIP = 2;
const definition = protoLoader.loadSync(
  ["memoryd/v1/memory.proto", "google/rpc/error_details.proto", "google/rpc/status.proto"],
  {
    includeDirs: [fileURLToPath(new URL("../../../protos", import.meta.url))],
    enums: String,
    longs: Number,
    defaults: true,
  },
);
const { MemoryService } = grpc.loadPackageDefinition(definition).memoryd.v1;

/** What is packed in the details of an error, by its type. */
function detailsOf(error) {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  const { details } = definition["google.rpc.Status"].deserialize(packed);
  return Object.fromEntries(
    details.map(({ type_url, typeUrl = type_url, value }) => {
      const type = typeUrl.split("/").at(-1);
      return [type, definition[type].deserialize(value)];
    }),
  );
}

export function checksOf(address, counted, sessionId) {
  const credentials = grpc.credentials.createInsecure();
  const client = new MemoryService(address, credentials);

  const call = (method, ...given) => promisify(client[method]).call(client, ...given);
  const refusal = (calling) => calling.then(() => assert.ok(false), (error) => error);

  return {
    async unary() {
      await call("storeMemory", { sessionId, content: "prefers e-mail" });
      const { results } = await call("retrieveMemories", { sessionId, query: "e-mail" });
      assert.equal(results[0].memory.content, "prefers e-mail");
    },
    async stream() {
      const changes = client.watchMemories({ sessionId });
      changes.on("error", () => {}); // that it is cancelled
      const [first] = await once(changes, "data");
      assert.equal(first.memory.content, "prefers e-mail");
      const next = once(changes, "data");
      await call("storeMemory", { sessionId, content: "likes tea" });
      assert.equal((await next)[0].memory.content, "likes tea");
      changes.cancel();
    },
    async errors() {
      const error = await refusal(call("storeMemory", { sessionId }));
      assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
      const details = detailsOf(error);
      assert.equal(details["google.rpc.ErrorInfo"].reason, WRONG.reason);
      assert.equal(details["google.rpc.BadRequest"].fieldViolations[0].field, WRONG.field);
    },
    async gzip() {
      const options = { "grpc.default_compression_algorithm": GZIP };
      const other = new MemoryService(counted, credentials, options);
      const { memory } = await promisify(other.storeMemory).call(other, { sessionId, content: LONG });
      assert.equal(memory.content, LONG);
      other.close();
      return "requests";
    },
    async deadline() {
      const changes = client.watchMemories({ sessionId }, { deadline: Date.now() + DEADLINE_MS });
      changes.on("data", () => {});
      const [error] = await once(changes, "error").catch((thrown) => [thrown]);
      assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
    },
    async metadata() {
      const metadata = new grpc.Metadata();
      metadata.set("x-request-id", "mine");
      const answered = await new Promise((resolve, reject) => {
        client
          .listMemories({ sessionId }, metadata, (error) => error && reject(error))
          .on("status", (status) => resolve(status.metadata.get("x-request-id")[0]));
      });
      assert.equal(answered, "mine");
    },
  };
}
