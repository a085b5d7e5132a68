package shard_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

var _ shard.Hash[string] = shard.XXHash

// The vectors are those of Vitess's own test of its vindex
// (go/vt/vtgate/vindexes/xxhash_test.go), where a number is hashed as its text
// and NULL as nothing.
func TestXXHashIsVitessXXHash(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"test1":                                 "d01ab7e4d6978f0b",
		"test2":                                 "87eb11714c0a0e89",
		"testaverylongvaluetomakesurethisworks": "81d8c38e0d850e6a",
		"1":                                     "d46405367612b4b7",
		"":                                      "99e9d85137db46ef",
		"-1":                                    "d8e2a6a7c8c7623d",
		"18446744073709551615":                  "477cfa8d6d8f1f8d",
		"9223372036854775807":                   "b37eb01f7bffafd8",
		"-9223372036854775808":                  "102c27ddb26a609e",
	} {
		id := shard.XXHash(key)
		require.Equal(t, want, id.String(), key)

		// Routing by the point is routing by Vitess's bytes.
		first, err := hex.DecodeString(want[:2])
		require.NoError(t, err)
		require.Equal(t, first[0] < 0x80, shard.Range{End: 0x80 << 56}.Contains(id), key)
	}
}

func TestXXHashAllocatesNothing(t *testing.T) {
	key := strings.Repeat("k", 100)
	require.Zero(t, testing.AllocsPerRun(100, func() { shard.XXHash(key) }))
}
