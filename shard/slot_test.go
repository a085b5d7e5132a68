package shard_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

// The check value of CRC16/XMODEM and the tags are those of the Redis Cluster
// specification; the slots are what CLUSTER KEYSLOT of Redis 7.0 answers.
func TestRedisSlotIsCLUSTERKEYSLOT(t *testing.T) {
	t.Parallel()
	require.Equal(t, uint16(0x31c3%16384), shard.RedisSlot("123456789"))
	for key, want := range map[string]uint16{
		"": 0, "foo": 12182, "bar": 5061, "user1000": 3443, "{user1000}.following": 3443, "foo{}{bar}": 8363, "foo{{bar}}zap": 4015, "foo{bar}{zap}": 5061,
	} {
		require.Equal(t, want, shard.RedisSlot(key), key)
	}
}

func TestTagIsWhatStandsInTheFirstBraces(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"": "", "key": "key", "{a}b": "a", "x{a}b{c}": "a", "x{}b": "x{}b", "x{}{b}": "x{}{b}", "x{{a}}": "{a", "x{a": "x{a", "x}a{b}": "b",
	} {
		require.Equal(t, want, shard.Tag(key), key)
	}
}

func TestSlotsLieOnTheRingInOrder(t *testing.T) {
	t.Parallel()
	ranges, err := shard.EvenRanges(shard.RedisSlots)
	require.NoError(t, err)
	for slot, r := range ranges {
		require.Equal(t, r.Start, shard.ID(slot)<<50)
	}
}
