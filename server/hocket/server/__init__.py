"""hocket's server: an asyncio porch, a study, a loom and a machine room; see docs/architecture.md."""
