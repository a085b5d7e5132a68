//go:build !race

package grpcbalance_test

const raceEnabled = false
