// Package benchmarks sets evenkeel beside its peers.
//
// It is a module outside the workspace, since the peers are a heavy download.
//
//	cd benchmarks
//	export GOWORK=off
//	go test -bench .          # tables, for benchstat
//	go test -run Ratio -v     # ratios of interleaved runs, with their gates
//
// A ratio is our time divided by the peer's. The gates are wide: they catch a change
// that doubles a cost, not one of a tenth.
package benchmarks
