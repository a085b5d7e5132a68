//go:build race

package grpcbalance_test

const raceEnabled = true
