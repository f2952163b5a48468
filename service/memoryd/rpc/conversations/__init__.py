"""ConversationService on the wire."""
