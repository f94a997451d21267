"""The local generator: one model behind OpenAI's HTTP, in a process of its own.

Speaks what vLLM speaks (chat completions, streams, LoRA adapters by name), so that one client serves both. Imports
llmops_core alone.
"""
