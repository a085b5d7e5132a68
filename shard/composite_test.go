package shard_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

func TestTuplesOfDifferentPartsDiffer(t *testing.T) {
	t.Parallel()
	parts := rapid.SliceOfN(rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00\x01\x02")), 0, 3, -1), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		a, b := parts.Draw(t, "a"), parts.Draw(t, "b")
		same := len(a) == len(b)
		for i := range a {
			same = same && a[i] == b[i]
		}
		require.Equal(t, same, shard.Tuple(a...) == shard.Tuple(b...))
	})
	require.Equal(t, "\x01g\x02ch", shard.Tuple("g", "ch"), "the form is stable")
}

func TestPrefixHoldsWhatCombineMakes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(-1, 65).Draw(t, "bits")
		first, other, rest := anyID().Draw(t, "first"), anyID().Draw(t, "other"), anyID().Draw(t, "rest")
		tenant := shard.Prefix(bits, first)
		require.True(t, tenant.Contains(shard.Combine(bits, first, rest)))
		require.True(t, tenant.Contains(shard.Combine(bits, first, 0)))
		require.True(t, tenant.Contains(shard.Combine(bits, first, 1<<64-1)))
		require.Equal(t, tenant == shard.Prefix(bits, other), tenant.Contains(shard.Combine(bits, other, rest)))
		require.Equal(t, tenant.Start, shard.Combine(bits, first, 0), "the whole of it is used")
	})
}

// Vitess's multicol vindex takes leading bytes of each column's hash.
func TestCombineIsVitessMulticol(t *testing.T) {
	t.Parallel()
	id := shard.Combine(16, 0x1122334455667788, 0x99aabbccddeeff00)
	require.Equal(t, "112299aabbccddee", id.String())
	require.Equal(t, "1122-1123", shard.Prefix(16, id).String())
	require.Equal(t, "ffff-", shard.Prefix(16, 0xffff<<48).String())
	require.Equal(t, shard.Range{}, shard.Prefix(0, id))
}

// Lengths of two bytes.
func TestTuplesOfLongParts(t *testing.T) {
	t.Parallel()
	require.Equal(t, "\x80\x01"+strings.Repeat("a", 128), shard.Tuple(strings.Repeat("a", 128)))
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Repeat("\x00", rapid.IntRange(0, 600).Draw(t, "length"))
		cut := func(name string) []string {
			i := rapid.IntRange(0, len(text)).Draw(t, name)
			return []string{text[:i], text[i:]}
		}
		a, b := cut("a"), cut("b")
		require.Equal(t, a[0] == b[0], shard.Tuple(a...) == shard.Tuple(b...))
	})
}
