//go:build race

package gate_test

// raceEnabled skips the counting of allocations: the race detector allocates.
const raceEnabled = true
