// What each program of this folder shows of its client, and how it says so: a line for each feature.

import assert from "./assert.mjs";

/** 12 KB that gzip makes much smaller. */
export const LONG = "word ".repeat(2400).trim();
export const WRONG = { field: "content", reason: "ERROR_REASON_INVALID_REQUEST" };
export const DEADLINE_MS = 300;

/** Run each check, and say its name with what it returns: `yes` if that is nothing. */
export async function run(checks, say = console.log) {
  for (const [feature, check] of Object.entries(checks)) {
    say(`${feature}: ${await outcome(check)}`);
  }
}

async function outcome(check) {
  try {
    return (await check()) ?? "yes";
  } catch (error) {
    return `failed: ${error.stack ?? error}`;
  }
}

/** The checks that clients of Connect have in common. */
export function callsOf(memories, watch, sessionId) {
  return {
    async unary() {
      await memories.storeMemory({ sessionId, content: "prefers e-mail" });
      const { results } = await memories.retrieveMemories({ sessionId, query: "e-mail" });
      assert.equal(results[0].memory.content, "prefers e-mail");
    },
    async stream() {
      const changes = watch({ sessionId })[Symbol.asyncIterator]();
      assert.equal((await changes.next()).value.memory.content, "prefers e-mail");
      const next = changes.next();
      await memories.storeMemory({ sessionId, content: "likes tea" });
      assert.equal((await next).value.memory.content, "likes tea");
      await changes.return?.();
    },
  };
}

export { assert };
