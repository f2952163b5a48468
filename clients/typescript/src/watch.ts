import { Code, type CallOptions } from "@connectrpc/connect";

import { MemorydError } from "./errors.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** What a call reports when its server stops, or when the way to it breaks. */
const PASSING: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Aborted,
  Code.Canceled,
  Code.DataLoss,
  Code.Internal,
  Code.InvalidArgument,
  Code.Unknown,
]);

/**
 * The changes that a watch reports, also after its server has stopped or the way to it has broken:
 * it is then called again from the last revision, after a pause.
 *
 * Throws where the first call is refused or reaches nobody, and where the server says why it ends a
 * watch. `options.signal` ends it silently.
 */
export async function* resuming<Request extends { startRevision?: bigint }, Change extends { revision: bigint }>(
  watch: (request: Request, options: CallOptions) => AsyncIterable<Change>,
  request: Request,
  options: CallOptions,
): AsyncGenerator<Change, void, undefined> {
  const { signal } = options;
  let startRevision = request.startRevision ?? 0n;
  let pause = FIRST_PAUSE_MS;
  let wasAnswered = false;
  const onHeader = (headers: Headers): void => {
    wasAnswered = true;
    options.onHeader?.(headers);
  };
  while (!signal?.aborted) {
    try {
      for await (const change of watch({ ...request, startRevision }, { ...options, onHeader })) {
        pause = FIRST_PAUSE_MS;
        startRevision = change.revision || startRevision;
        yield change;
      }
    } catch (thrown) {
      if (signal?.aborted) {
        return;
      }
      if (!wasAnswered || !isPassing(MemorydError.from(thrown))) {
        throw thrown;
      }
    }
    await sleep(pause * (0.5 + Math.random() / 2), signal);
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

function isPassing(error: MemorydError): boolean {
  // Without a reason it is not the server that speaks.
  return error.code === Code.Unavailable || (error.reason === "" && PASSING.has(error.code));
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    }
  });
}
