//! Tests of the whole device through what a guest and a server see.
