// The checks of grpc-web, whose messages are those of memoryd/v1.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import grpcWeb from "grpc-web";
import { BadRequestSchema, ErrorInfoSchema } from "memoryd/google/rpc/error_details";
import { StatusSchema } from "memoryd/google/rpc/status";
import { MemoryService } from "memoryd/v1/memory";

import { assert, DEADLINE_MS, WRONG } from "./scenario.mjs";

export function checksOf(url, sessionId) {
  // As text, since only that is read while it comes.
  const client = new grpcWeb.GrpcWebClientBase({ format: "text" });

  function described(name) {
    const { input, output, methodKind } = MemoryService.method[name];
    const path = `/${MemoryService.typeName}/${MemoryService.method[name].name}`;
    const descriptor = new grpcWeb.MethodDescriptor(
      path,
      methodKind,
      Object,
      Object,
      (message) => toBinary(input, message),
      (bytes) => fromBinary(output, bytes),
    );
    return { path: url + path, descriptor, complete: (message) => create(input, message) };
  }

  function call(name, message, metadata = {}) {
    const { path, descriptor, complete } = described(name);
    let stream;
    const answer = new Promise((resolve, reject) => {
      stream = client.rpcCall(path, complete(message), metadata, descriptor, (error, found) =>
        error ? reject(error) : resolve(found),
      );
    });
    return { answer, stream };
  }

  function watch(metadata = {}) {
    const { path, descriptor, complete } = described("watchMemories");
    return client.serverStreaming(path, complete({ sessionId }), metadata, descriptor);
  }

  return {
    async unary() {
      await call("storeMemory", { sessionId, content: "prefers e-mail" }).answer;
      const { results } = await call("retrieveMemories", { sessionId, query: "e-mail" }).answer;
      assert.equal(results[0].memory.content, "prefers e-mail");
    },
    async stream() {
      const changes = watch();
      const contents = await new Promise((resolve, reject) => {
        const found = [];
        changes.on("error", reject).on("data", ({ memory }) => {
          found.push(memory.content);
          if (found.length === 1) {
            call("storeMemory", { sessionId, content: "likes tea" }).answer.catch(reject);
          } else {
            resolve(found);
          }
        });
      });
      changes.cancel();
      assert.equal(contents.join(), "prefers e-mail,likes tea");
    },
    async errors() {
      const error = await call("storeMemory", { sessionId }).answer.then(
        () => assert.ok(false),
        (thrown) => thrown,
      );
      assert.equal(error.code, grpcWeb.StatusCode.INVALID_ARGUMENT);
      const status = fromBinary(StatusSchema, base64Decode(error.metadata["grpc-status-details-bin"]));
      const packed = (type) => status.details.find(({ typeUrl }) => typeUrl.endsWith(type)).value;
      assert.equal(fromBinary(ErrorInfoSchema, packed(".ErrorInfo")).reason, WRONG.reason);
      const { fieldViolations } = fromBinary(BadRequestSchema, packed(".BadRequest"));
      assert.equal(fieldViolations[0].field, WRONG.field);
    },
    gzip: () => "no",
    async deadline() {
      const changes = watch({ deadline: String(Date.now() + DEADLINE_MS) });
      const error = await new Promise((resolve) => changes.on("error", resolve));
      assert.equal(error.code, grpcWeb.StatusCode.DEADLINE_EXCEEDED);
    },
    async metadata() {
      const { answer, stream } = call("listMemories", { sessionId }, { "x-request-id": "mine" });
      const status = new Promise((resolve) => stream.on("status", resolve));
      await answer;
      assert.equal((await status).metadata["x-request-id"], "mine");
    },
  };
}
