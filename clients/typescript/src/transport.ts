import type { Transport } from "@connectrpc/connect";

import { MemorydError } from "./errors.js";

/** What holds for every call of a client. */
export interface CallDefaults {
  /** An API key or a token. */
  readonly apiKey?: string | undefined;
  /** How long a call that is no stream may take unless it says otherwise, in milliseconds; 5,000 by default. */
  readonly timeoutMs?: number | undefined;
}

const TIMEOUT_MS = 5_000;

/** A transport that shows the credential, sets deadlines, and throws `MemorydError`. */
export function withDefaults(inner: Transport, defaults: CallDefaults): Transport {
  const { apiKey, timeoutMs: patience = TIMEOUT_MS } = defaults;

  function headers(given: HeadersInit | undefined): Headers {
    const found = new Headers(given);
    if (apiKey !== undefined && !found.has("authorization")) {
      found.set("authorization", `Bearer ${apiKey}`);
    }
    return found;
  }

  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      try {
        const waits = timeoutMs ?? patience;
        return await inner.unary(method, signal, waits, headers(header), input, contextValues);
      } catch (thrown) {
        throw MemorydError.from(thrown);
      }
    },
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      try {
        const shown = headers(header);
        const answer = await inner.stream(method, signal, timeoutMs, shown, input, contextValues);
        return { ...answer, message: translated(answer.message) };
      } catch (thrown) {
        throw MemorydError.from(thrown);
      }
    },
  };
}

async function* translated<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (thrown) {
    throw MemorydError.from(thrown);
  }
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/** Throws where a credential would travel readable to another machine. */
export function checkCredential(
  baseUrl: string,
  { apiKey, allowPlaintextCredentials = false }: ConnectOptions,
): void {
  const { protocol, hostname } = new URL(baseUrl);
  const isReadable = protocol === "http:" && !LOOPBACK.test(hostname);
  if (apiKey !== undefined && isReadable && !allowPlaintextCredentials) {
    throw new TypeError(
      `${baseUrl} would receive the API key readable by everyone on the way: ` +
        "use https, or set allowPlaintextCredentials",
    );
  }
}

/** How to reach a server. */
export interface ConnectOptions extends CallDefaults {
  /** Show the API key to another machine without TLS. */
  readonly allowPlaintextCredentials?: boolean | undefined;
}
