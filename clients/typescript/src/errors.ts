import { Code, ConnectError } from "@connectrpc/connect";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

/** One rule that a request breaks. */
export interface Violation {
  /** Path into the request: `content`, `requests[3].session_id`. */
  readonly field: string;
  /** What is wrong with it, and what would be right. */
  readonly description: string;
}

/** A call that was refused, or that failed. */
export class MemorydError extends Error {
  override readonly name = "MemorydError";
  readonly code: Code;
  /** The name of an `ErrorReason`, such as `ERROR_REASON_SESSION_FULL`; empty where no server has answered. */
  readonly reason: string;
  /** Every rule that the request breaks. */
  readonly violations: readonly Violation[];
  /** By what the server's log has the call; empty where no server has answered. */
  readonly requestId: string;
  /** After how many milliseconds to try again; undefined where the server does not say. */
  readonly retryAfterMs: number | undefined;

  constructor(cause: ConnectError) {
    super(cause.rawMessage, { cause });
    this.code = cause.code;
    this.reason = cause.findDetails(ErrorInfoSchema)[0]?.reason ?? "";
    this.violations = cause
      .findDetails(BadRequestSchema)
      .flatMap((each) => each.fieldViolations)
      .map(({ field, description }) => ({ field, description }));
    this.requestId =
      cause.findDetails(RequestInfoSchema)[0]?.requestId ?? cause.metadata.get("x-request-id") ?? "";
    const delay = cause.findDetails(RetryInfoSchema)[0]?.retryDelay;
    this.retryAfterMs = delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6;
  }

  /** The error of whatever a transport has thrown. */
  static from(thrown: unknown): MemorydError {
    return thrown instanceof MemorydError ? thrown : new MemorydError(ConnectError.from(thrown));
  }
}
