"""`halyard-relay eval` and `halyard-relay explain`: one flag, one context, from a running relay or a snapshot file."""
