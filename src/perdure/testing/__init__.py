"""Published for other people's tests: fakes for every port, and the conformance suites that they pass."""
