// The checks of our own client, of whatever platform.

import { assert, callsOf, DEADLINE_MS, LONG, WRONG } from "./scenario.mjs";

/** `connect`, `Code` and `MemorydError`: of memoryd/node or memoryd/web. */
export function checksOf({ connect, Code, MemorydError }, url, countedUrl, gzip, sessionId) {
  const { memories, watchMemories } = connect(url);

  async function refusal(call) {
    const error = await call.then(() => undefined, (thrown) => thrown);
    assert.ok(error instanceof MemorydError);
    return error;
  }

  return {
    ...callsOf(memories, watchMemories, sessionId),
    async errors() {
      const error = await refusal(memories.storeMemory({ sessionId }));
      assert.equal(error.code, Code.InvalidArgument);
      assert.equal(error.reason, WRONG.reason);
      assert.equal(error.violations[0].field, WRONG.field);
      assert.ok(error.requestId);
    },
    async gzip() {
      const { memory } = await connect(countedUrl).memories.storeMemory({ sessionId, content: LONG });
      assert.equal(memory.content, LONG);
      return gzip;
    },
    async deadline() {
      const changes = memories.watchMemories({ sessionId }, { timeoutMs: DEADLINE_MS });
      assert.equal((await refusal(Array.fromAsync(changes))).code, Code.DeadlineExceeded);
    },
    async metadata() {
      let answered;
      const onTrailer = (trailer) => (answered = trailer.get("x-request-id"));
      await memories.listMemories({ sessionId }, { headers: { "x-request-id": "mine" }, onTrailer });
      assert.equal(answered, "mine");
    },
  };
}
