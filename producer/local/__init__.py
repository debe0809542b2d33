"""A whole fleet on this machine, for one `printroom render`: Valkey, a folder as the store, one worker."""
