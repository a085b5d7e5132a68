package shard_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// anyMap draws maps with names and nodes of any text.
func anyMap() *rapid.Generator[*shard.Map] {
	return rapid.Custom(func(t *rapid.T) *shard.Map {
		shards := anyTiles().Draw(t, "shards")
		for i := range shards {
			if rapid.Bool().Draw(t, "named") {
				shards[i].Name = rapid.String().Draw(t, "name") + string(rune('A'+i))
			}
			shards[i].Node = rapid.String().Draw(t, "node")
		}
		m, err := shard.NewMap(rapid.Uint64().Draw(t, "epoch"), shards...)
		if errors.Is(err, shard.ErrDuplicateName) {
			t.Skip("two shards of one name")
		}
		require.NoError(t, err)
		return m
	})
}

func TestAMapSurvivesJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := anyMap().Draw(t, "map")
		text, err := json.Marshal(m)
		require.NoError(t, err)
		var read shard.Map
		require.NoError(t, json.Unmarshal(text, &read))
		require.Equal(t, m, &read)
		again, err := json.Marshal(&read)
		require.NoError(t, err)
		require.Equal(t, text, again)
	})
}

// The form and the digest are kept by others, in files and databases: they may not
// change.
func TestTheFormOfAMapIsStable(t *testing.T) {
	t.Parallel()
	m := newMap(t, 7, shard.Shard{Range: parse(t, "80-"), Node: "db2", Name: "right"}, shard.Shard{Range: parse(t, "-80"), Node: "db1"})
	text, err := json.Marshal(m)
	require.NoError(t, err)
	require.Equal(t, `{"version":1,"epoch":7,"shards":[{"range":"-80","node":"db1"},{"name":"right","range":"80-","node":"db2"}]}`, string(text))
	require.Equal(t, uint64(0x7c60e50923d9c334), m.Digest(), "%x", m.Digest())
}

func TestUnmarshalRefusesWhatIsNoMap(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`null`:                                   "version is missing",
		`[]`:                                     "cannot unmarshal array",
		`{}`:                                     "version is missing",
		`{"version":2,"new":{}}`:                 "version is 2, expected 1",
		`{"version":1,"shards":[{"range":"-"}]}`: "epoch is missing",
		`{"version":1,"epoch":-1,"shards":[{"range":"-"}]}`:                                        "epoch",
		`{"version":1,"epoch":1}`:                                                                  "no shards",
		`{"version":1,"epoch":1,"shards":[{"range":"-","nod":"db1"}]}`:                             `unknown field "nod"`,
		`{"version":1,"epoch":1,"shards":[{"node":"db1"}]}`:                                        "has no range",
		`{"version":1,"epoch":1,"shards":[{"range":"-8"}]}`:                                        `"8" has an odd number`,
		`{"version":1,"epoch":1,"shards":[{"range":"-80"},{"range":"90-"}]}`:                       "nothing owns 80-90",
		`{"version":1,"epoch":1,"shards":[{"range":"-80"},{"range":"70-"}]}`:                       "overlapping",
		`{"version":1,"epoch":1,"shards":[{"range":"-80","name":"a"},{"range":"80-","name":"a"}]}`: "duplicate",
	} {
		m := newMap(t, 3, shard.Shard{Node: "before"})
		err := m.UnmarshalJSON([]byte(text))
		require.ErrorIs(t, err, shard.ErrBadMap, text)
		require.ErrorContains(t, err, want, text)
		require.Equal(t, newMap(t, 3, shard.Shard{Node: "before"}), m, "left alone")
	}
	gap := newMap(t, 3, shard.Shard{}).UnmarshalJSON([]byte(`{"version":1,"epoch":1,"shards":[{"range":"-80"}]}`))
	require.ErrorIs(t, gap, shard.ErrGap)
	_, err := json.Marshal(new(shard.Map))
	require.ErrorIs(t, err, shard.ErrBadMap)
}

func TestTheDigestTellsMapsApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyMap().Draw(t, "a"), anyMap().Draw(t, "b")
		same := a.Len() == b.Len()
		for s := range a.All() {
			same = same && *s == *b.Lookup(s.Range.Start)
		}
		require.Equal(t, same, a.Digest() == b.Digest())
	})
	// Where a name ends and a node begins counts.
	require.NotEqual(t, newMap(t, 1, shard.Shard{Name: "ab", Node: "c"}).Digest(), newMap(t, 1, shard.Shard{Name: "a", Node: "bc"}).Digest())
	require.Equal(t, newMap(t, 1, shard.Shard{Name: "a"}).Digest(), newMap(t, 2, shard.Shard{Name: "a"}).Digest())
}

// Whatever is read as a map is one, and is written as itself.
func FuzzMapJSON(f *testing.F) {
	f.Add([]byte(`{"version":1,"epoch":7,"shards":[{"range":"-80","node":"db1"},{"name":"right","range":"80-","node":"db2"}]}`))
	f.Add([]byte(`{"version":1,"epoch":7,"shards":[{"range":"0"}]}`))
	f.Add([]byte(`{"version":1,"epoch":18446744073709551615,"shards":[{"range":"-0001"},{"range":"0001-"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m shard.Map
		if err := m.UnmarshalJSON(text); err != nil {
			require.ErrorIs(t, err, shard.ErrBadMap)
			require.Zero(t, m.Len())
			return
		}
		require.NotNil(t, m.Lookup(0))
		written, err := m.MarshalJSON()
		require.NoError(t, err)
		var again shard.Map
		require.NoError(t, again.UnmarshalJSON(written))
		require.Equal(t, m.Digest(), again.Digest())
		require.Equal(t, m.Epoch(), again.Epoch())
	})
}

// JSON would replace what is not UTF-8, and the reader would have another map of the same epoch.
func TestJSONRefusesTextThatItWouldChange(t *testing.T) {
	t.Parallel()
	m, err := shard.NewMap(1, shard.Shard{Range: parse(t, "-80"), Name: "\xff", Node: "n\xfe"}, shard.Shard{Range: parse(t, "80-"), Name: "x"})
	if err != nil {
		return // refusing it is right too
	}
	text, err := json.Marshal(m)
	if err != nil {
		return // and so is this
	}
	var read shard.Map
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, m.Digest(), read.Digest())
	_, err = m.Supersedes(&read)
	require.NoError(t, err, "the publisher and its readers are no split brain")
}

// Package json takes the last of two keys, and any case.
func TestUnmarshalRefusesKeysTwiceAndInAnotherCase(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"version":1,"epoch":1,"epoch":9,"shards":[{"range":"-"}]}`,
		`{"version":1,"epoch":1,"shards":[{"range":"-","node":"a"}],"shards":[{"range":"-"}]}`,
		`{"VERSION":1,"Epoch":1,"sharDs":[{"Range":"-"}]}`,
	} {
		var m shard.Map
		err := m.UnmarshalJSON([]byte(text))
		if err == nil {
			out, _ := m.MarshalJSON()
			t.Errorf("%s was read as %s", text, out)
		}
	}
}
