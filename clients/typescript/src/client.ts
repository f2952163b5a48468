import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  createClient as createServiceClient,
  type CallOptions,
  type Client,
  type Transport,
} from "@connectrpc/connect";

import { AccessService } from "./gen/memoryd/v1/access_pb.js";
import {
  ConversationService,
  type WatchConversationsRequestSchema,
  type WatchConversationsResponse,
} from "./gen/memoryd/v1/conversation_pb.js";
import {
  DocumentService,
  type WatchDocumentsRequestSchema,
  type WatchDocumentsResponse,
} from "./gen/memoryd/v1/document_pb.js";
import {
  MemoryService,
  type WatchMemoriesRequestSchema,
  type WatchMemoriesResponse,
} from "./gen/memoryd/v1/memory_pb.js";
import { SessionService } from "./gen/memoryd/v1/session_pb.js";
import {
  ToolConfigService,
  type WatchToolConfigsRequestSchema,
  type WatchToolConfigsResponse,
} from "./gen/memoryd/v1/tool_config_pb.js";
import { withDefaults, type CallDefaults } from "./transport.js";
import { resuming } from "./watch.js";

type Watch<Request, Change> = (
  request: Request,
  options?: CallOptions,
) => AsyncGenerator<Change, void, undefined>;

/** The services of a memoryd, and its watches, which resume by themselves: see `resuming`. */
export interface MemorydClient {
  readonly access: Client<typeof AccessService>;
  readonly conversations: Client<typeof ConversationService>;
  readonly documents: Client<typeof DocumentService>;
  readonly memories: Client<typeof MemoryService>;
  readonly sessions: Client<typeof SessionService>;
  readonly tools: Client<typeof ToolConfigService>;
  readonly watchConversations: Watch<
    MessageInitShape<typeof WatchConversationsRequestSchema>,
    WatchConversationsResponse
  >;
  readonly watchDocuments: Watch<
    MessageInitShape<typeof WatchDocumentsRequestSchema>,
    WatchDocumentsResponse
  >;
  readonly watchMemories: Watch<
    MessageInitShape<typeof WatchMemoriesRequestSchema>,
    WatchMemoriesResponse
  >;
  readonly watchTools: Watch<
    MessageInitShape<typeof WatchToolConfigsRequestSchema>,
    WatchToolConfigsResponse
  >;
}

/**
 * A client over any transport of Connect, also one for gRPC or gRPC-Web. `connect` of `memoryd/node`
 * and `memoryd/web` bring theirs.
 */
export function createClient(transport: Transport, defaults: CallDefaults = {}): MemorydClient {
  const own = withDefaults(transport, defaults);
  const conversations = createServiceClient(ConversationService, own);
  const documents = createServiceClient(DocumentService, own);
  const memories = createServiceClient(MemoryService, own);
  const tools = createServiceClient(ToolConfigService, own);
  return {
    access: createServiceClient(AccessService, own),
    conversations,
    documents,
    memories,
    sessions: createServiceClient(SessionService, own),
    tools,
    watchConversations: (request, options = {}) =>
      resuming(conversations.watchConversations, request, options),
    watchDocuments: (request, options = {}) => resuming(documents.watchDocuments, request, options),
    watchMemories: (request, options = {}) => resuming(memories.watchMemories, request, options),
    watchTools: (request, options = {}) => resuming(tools.watchToolConfigs, request, options),
  };
}
