"""Memory and tool configuration of conversational agents, served over gRPC."""
