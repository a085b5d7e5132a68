package topotest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
)

// Of many that publish different maps of the same next epoch exactly one wins, and
// everybody sees its map.
func oneOfManyWins(t *testing.T, p Place) {
	const rounds = 6
	all := make([]*Watcher, 3)
	for i := range all {
		all[i] = Watch(t, p.Open(t))
	}
	won := map[uint64]*shard.Map{}
	for epoch := range uint64(rounds) {
		results := make([]error, p.Publishers)
		maps := make([]*shard.Map, p.Publishers)
		var done sync.WaitGroup
		start := make(chan struct{})
		shared := p.Open(t)
		for i := range results {
			s := shared // in every other round one Store is used by all
			if epoch%2 == 0 {
				s = p.Open(t)
			}
			maps[i] = NewMap(t, epoch, 4, fmt.Sprint("of publisher ", i))
			done.Go(func() { <-start; results[i] = s.Publish(soon(t), maps[i]) })
		}
		close(start)
		done.Wait()
		for i, err := range results {
			if err == nil {
				require.Nil(t, won[epoch], "two have won epoch %d", epoch)
				won[epoch] = maps[i]
			} else {
				require.ErrorIs(t, err, shard.ErrSplitBrain)
			}
		}
		require.NotNil(t, won[epoch], "nobody has won epoch %d", epoch)
		requireLoads(t, p.Open(t), won[epoch])
	}
	for _, w := range all {
		requireMap(t, won[rounds-1], w.Until(rounds-1))
	}
}

// Many that load, change and publish, and begin again when they were refused, lose no
// change: each success is an epoch of its own.
func changesOfManyAreAllMade(t *testing.T, p Place) {
	const each = 4
	w := Watch(t, p.Open(t))
	publish(t, p.Open(t), NewMap(t, 1, 1, ""))
	var done sync.WaitGroup
	for i := range p.Publishers {
		s := p.Open(t)
		done.Go(func() {
			for n := range each {
				assert.NoError(t, change(soon(t), s.Load, s.Publish, fmt.Sprintf(" %d/%d", i, n)))
			}
		})
	}
	done.Wait()
	last, err := p.Open(t).Load(soon(t))
	require.NoError(t, err)
	require.Equal(t, uint64(1+each*p.Publishers), last.Epoch())
	node := last.Lookup(0).Node
	for i := range p.Publishers {
		for n := range each {
			require.Contains(t, node+" ", fmt.Sprintf(" %d/%d ", i, n))
		}
	}
	requireMap(t, last, w.Until(last.Epoch()))
}

// change adds a note to the node of the map's one shard.
func change(
	ctx context.Context,
	load func(context.Context) (*shard.Map, error),
	publish func(context.Context, *shard.Map) error,
	note string,
) error {
	for {
		m, err := load(ctx)
		if err != nil {
			return err
		}
		s := m.Lookup(0)
		next, err := m.Move(s.Name, s.Node+note)
		if err != nil {
			return err
		}
		err = publish(ctx, next)
		if !errors.Is(err, shard.ErrSplitBrain) && !errors.Is(err, shard.ErrStaleMap) {
			return err
		}
	}
}

// Watchers that came early, late and in between all get the newest map.
func watchers(t *testing.T, p Place) {
	const epochs = 20
	s := p.Open(t)
	all := []*Watcher{Watch(t, p.Open(t)), Watch(t, p.Open(t))}
	shared := p.Open(t)
	for epoch := range uint64(epochs) {
		publish(t, s, NewMap(t, epoch, 2, fmt.Sprint(epoch)))
		if epoch%5 == 0 {
			all = append(all, Watch(t, shared))
			if epoch%2 == 0 {
				all[0].Until(epoch) // as one that reads in step
			}
		}
	}
	all = append(all, Watch(t, p.Open(t)))
	want := NewMap(t, epochs-1, 2, fmt.Sprint(epochs-1))
	for _, w := range all {
		requireMap(t, want, w.Until(epochs-1))
	}
	late := Watch(t, shared)
	requireMap(t, want, late.Until(epochs-1))
	require.Empty(t, late.Errors())
}
