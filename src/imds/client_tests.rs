//! Real clients against the service, on a socket of 127.0.0.1.
