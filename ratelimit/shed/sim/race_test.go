//go:build race

package sim_test

// raceEnabled skips the counting of allocations: the race detector allocates.
const raceEnabled = true
