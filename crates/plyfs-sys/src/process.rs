//! Daemonising, signals, resource limits and what the process may do.
