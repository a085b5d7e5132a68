package topotest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

// What is no map takes no effect and is reported with its place; the next map ends it.
func garbage(t *testing.T, p Place) {
	if p.Corrupt == nil {
		notAMap(t, p)
		return
	}
	s := p.Open(t)
	w := Watch(t, p.Open(t))
	publish(t, s, NewMap(t, 1, 2, "db"))
	w.Until(1)
	w.Errors()
	p.Corrupt(t, `{"version":1,"epoch":2,"shards":[{"range":"-80"}]}`)
	_, err := s.Load(soon(t))
	require.ErrorIs(t, err, shard.ErrBadMap)
	require.ErrorIs(t, err, shard.ErrGap, "it says what is wrong")
	require.ErrorContains(t, err, p.Where)
	err = w.UntilError(shard.ErrBadMap)
	require.ErrorIs(t, err, shard.ErrGap)
	require.ErrorContains(t, err, p.Where)
	newcomer := Watch(t, p.Open(t))
	newcomer.UntilError(shard.ErrBadMap)
	require.Empty(t, newcomer.Maps())

	publish(t, s, NewMap(t, 10, 4, "db"))
	requireLoads(t, p.Open(t), NewMap(t, 10, 4, "db"))
	for _, w := range []*Watcher{w, newcomer} {
		requireMap(t, NewMap(t, 10, 4, "db"), w.Until(10))
		for _, err := range w.Errors() {
			t.Errorf("it was told again: %v", err)
		}
	}
	// And again, which is news.
	p.Corrupt(t, `{"version":1,"epoch":2,"shards":[{"range":"-80"}]}`)
	w.UntilError(shard.ErrBadMap)
	publish(t, s, NewMap(t, 20, 4, "db"))
	w.Until(20)
}

func garbageInAllForms(t *testing.T, p Place) {
	if p.Corrupt == nil {
		onlyForward(t, p)
		return
	}
	good, err := json.Marshal(NewMap(t, 2, 2, "db"))
	require.NoError(t, err)
	s := p.Open(t)
	epoch := uint64(1)
	for _, text := range []string{
		"", " ", "null", "true", "[]", "{}", `""`, "\ufeff" + string(good), string(good[:len(good)-1]), string(good) + "}",
		string(good) + string(good), strings.Replace(string(good), `"version":1`, `"version":2`, 1),
		strings.Replace(string(good), `"epoch":2`, `"epoch":-1`, 1), strings.Replace(string(good), `"epoch":2`, `"epoch":2.5`, 1),
		strings.Replace(string(good), `"epoch":2`, `"epoch":18446744073709551616`, 1),
		strings.Replace(string(good), `"epoch":2,`, ``, 1), strings.Replace(string(good), `-80`, `-8`, 1),
		strings.Replace(string(good), `-80`, `-81`, 1), strings.Replace(string(good), `-80`, `-7f`, 1),
		strings.Repeat("[", 100_000), strings.Repeat("x", 1<<20),
	} {
		publish(t, s, NewMap(t, epoch, 2, "db"))
		requireLoads(t, s, NewMap(t, epoch, 2, "db"))
		p.Corrupt(t, text)
		_, err := s.Load(soon(t))
		require.ErrorIs(t, err, shard.ErrBadMap, "%.100q", text)
		require.ErrorContains(t, err, p.Where, "%.100q", text)
		epoch += 10
	}
}
