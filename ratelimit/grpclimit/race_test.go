//go:build race

package grpclimit_test

// raceEnabled skips the counting of allocations: the race detector allocates.
const raceEnabled = true
