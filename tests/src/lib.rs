//! Labs and fixtures for the tests, the demo and the benches of lbx.
