//! Integration tests of the whole: a cluster on loopback as a user starts it.
