"""The console: what an operator looks at during an incident. Off unless the settings turn it on, and behind the token."""
