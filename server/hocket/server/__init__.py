"""The server: an asyncio porch, a study, a loom, a machine room; see docs/architecture.md."""
