//go:build race

package httpbalance_test

const raceEnabled = true
