package shard_test

import (
	"encoding/hex"
	"math"
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

// The vectors are those of Vitess's own test of its vindex
// (go/vt/vtgate/vindexes/hash_test.go).
func TestVitessHashIsVitessHash(t *testing.T) {
	t.Parallel()
	for key, want := range map[uint64]string{
		1: "166b40b44aba4bd6", 2: "06e7ea22ce92708f", 3: "4eb190c9a2fa169c", 4: "d2fd8867d50d2dfe", 5: "70bb023c810ca87a", 6: "f098480ac4c4be71",
	} {
		require.Equal(t, want, shard.VitessHash(key).String(), key)
	}
}

// The vectors are what PostgreSQL 15.20 answers; internal/integration/shard compares
// random keys with a live server.
func TestPGTextIsHashtextextended(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int64{
		"": -6939563903564495251, "a": 3591986179850072241, "ab": 2833316173711343549, "abcd": -1038429303365892052,
		"channel:42": -2665368904413668280, "12345678": -2672274306434209449, "123456789": 5342912370613372840,
		"abcdefghijk": 3112909444737856467, "abcdefghijkl": -7556637188122330412, "abcdefghijklm": 8871624171452417744,
		"The quick brown fox jumps over the lazy dog": 2182139051089226439, "héllo wörld ✓": -6183585313753596660,
	} {
		require.Equal(t, want, shard.PGText(key).Int64(), key)
	}
}

func TestPGInt8IsHashint8extended(t *testing.T) {
	t.Parallel()
	for key, want := range map[int64]int64{
		0: 4154612158245552303, 1: -3670598878359251130, -1: -1888257769727981238, 42: 8010225493015854792, -42: 8809670066178192187,
		math.MaxInt32: -9109110466470504941, math.MinInt32: 1977219185673256887, 1 << 32: -3670598878359251130,
		math.MaxInt64: 1977219185673256887, math.MinInt64: -9109110466470504941,
	} {
		require.Equal(t, want, shard.PGInt8(key).Int64(), key)
	}
}

func TestPGUUIDIsUUIDHashExtended(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"00000000-0000-0000-0000-000000000000": -6859010066814654381,
		"6ba7b810-9dad-11d1-80b4-00c04fd430c8": -7660212938568749411,
		"ffffffff-ffff-ffff-ffff-ffffffffffff": 293445543803463785,
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
		require.NoError(t, err)
		require.Equal(t, want, shard.PGUUID([16]byte(b)).Int64(), text)
		require.Equal(t, shard.PGText(string(b)), shard.PGUUID([16]byte(b)), "one hash of bytes")
	}
}

func TestHashesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	var sink shard.ID
	for name, hash := range map[string]func(){
		"PGText": func() { sink += shard.PGText("a key of some length") }, "PGInt8": func() { sink += shard.PGInt8(7) },
		"PGUUID": func() { sink += shard.PGUUID([16]byte{1}) }, "VitessHash": func() { sink += shard.VitessHash(7) },
		"RedisSlot": func() { sink += shard.ID(shard.RedisSlot("a{tag}b")) }, "Jump": func() { sink += shard.ID(shard.Jump(7, 1000)) },
		"Rendezvous": func() { sink += shard.ID(shard.Rendezvous(7, []string{"a", "b"})) }, "Combine": func() { sink += shard.Combine(8, 1, 2) },
	} {
		require.Zero(t, testing.AllocsPerRun(100, hash), name)
	}
}
