"""Per-client features: the spec, the profile kernel, and the engine that runs it over a log or over one request."""
