// The checks of a stock client of Connect, whatever its transport.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "memoryd/google/rpc/error_details";
import { MemoryService } from "memoryd/v1/memory";

import { assert, callsOf, DEADLINE_MS, LONG, WRONG } from "./scenario.mjs";

/** `counted`: a transport by which bytes are counted; `gzip`: what it compresses. */
export function checksOf(transport, counted, gzip, sessionId) {
  const memories = createClient(MemoryService, transport);
  return {
    ...callsOf(memories, memories.watchMemories, sessionId),
    async errors() {
      const error = await refusal(memories.storeMemory({ sessionId }));
      assert.equal(error.code, Code.InvalidArgument);
      assert.equal(error.findDetails(ErrorInfoSchema)[0].reason, WRONG.reason);
      assert.equal(error.findDetails(BadRequestSchema)[0].fieldViolations[0].field, WRONG.field);
    },
    async gzip() {
      const client = createClient(MemoryService, counted);
      const { memory } = await client.storeMemory({ sessionId, content: LONG });
      assert.equal(memory.content, LONG);
      return gzip;
    },
    async deadline() {
      const changes = memories.watchMemories({ sessionId }, { timeoutMs: DEADLINE_MS });
      assert.equal((await refusal(Array.fromAsync(changes))).code, Code.DeadlineExceeded);
    },
    async metadata() {
      let answered;
      await memories.listMemories(
        { sessionId },
        {
          headers: { "x-request-id": "mine" },
          onTrailer: (trailer) => (answered = trailer.get("x-request-id")),
        },
      );
      assert.equal(answered, "mine");
    },
  };
}

async function refusal(call) {
  const error = await call.then(() => undefined, ConnectError.from);
  assert.ok(error);
  return error;
}
