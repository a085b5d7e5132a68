//go:build race

package httpcoalesce_test

// raceEnabled says that the race detector is on, under which allocations and
// sync.Pool differ.
const raceEnabled = true
