package shard_test

import (
	"cmp"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// That databases read the conditions so is tested with real ones in
// internal/integration/shard.
func TestRangeSQL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"-":     "(h IS NOT NULL)",
		"-80":   "(h < 0)",
		"80-":   "(h >= 0)",
		"40-80": "(h >= -4611686018427387904 AND h < 0)",
		"c0-":   "(h >= 4611686018427387904)",
		// The least int64 of all is never written: it is no literal in SQL.
		"-0000000000000001":                 "(h < -9223372036854775807)",
		"0000000000000001-0000000000000002": "(h >= -9223372036854775807 AND h < -9223372036854775806)",
		"ffffffffffffffff-":                 "(h >= 9223372036854775807)",
	} {
		require.Equal(t, want, parse(t, text).SQL("h"), text)
	}
}

func TestInt64KeepsTheOrderOfTheRing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyID().Draw(t, "a"), anyID().Draw(t, "b")
		require.Equal(t, cmp.Compare(a, b), cmp.Compare(a.Int64(), b.Int64()))
		require.Equal(t, a, shard.FromInt64(a.Int64()))
	})
}
