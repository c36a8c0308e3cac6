"""The service: answers a gateway with allow, challenge or block, one request at a time."""
