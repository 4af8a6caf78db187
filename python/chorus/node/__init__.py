"""The process that hosts the Rust core: swarm, DHT, consensus, log, sentinel and the hub."""
