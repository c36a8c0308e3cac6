"""botsieve: tells malicious bots from legitimate clients in front of LLM inference gateways."""

__version__ = "0.1.0"
