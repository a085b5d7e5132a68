// Package peerbugs shows how libraries that share work behave where it is hard to
// be right: one probe for each behaviour, run against this library and its peers.
// It has tests only; they print the tables that docs/coalesce-peers.md contains.
//
//	cd benchmarks && GOWORK=off go test -count=1 -v -run PeerBugs ./peerbugs
//
// The verdicts are asserted, also those of the peers: the test fails when one of
// them is mended, and the page can be.
package peerbugs
