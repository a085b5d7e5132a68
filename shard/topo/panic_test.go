package topo_test

import (
	"context"
	"database/sql/driver"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// A loop whose body panics has ended what its watch has started, and not only when its
// context ends.
func TestAWatchEndsWhenItsLoopPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop := func(s shard.Source) func() {
			return func() {
				for range s.Watch(t.Context()) {
					synctest.Wait() // until all of it runs
					panic("out of the loop")
				}
			}
		}
		d := new(deaf)
		require.PanicsWithValue(t, "out of the loop", loop(cached(t, d, fileWith(t, 5))))
		require.False(t, d.running.Load(), "the source of a Cached")

		began, ended := 0, 0
		o := topo.TableOptions{Listen: func(ctx context.Context, _ string, _ func()) error {
			began++
			<-ctx.Done()
			ended++
			return ctx.Err()
		}}
		table := tableOver(t, func(context.Context) ([]driver.Value, error) { return nil, nil }, o)
		require.PanicsWithValue(t, "out of the loop", loop(table))
		require.Equal(t, 1, began)
		require.Equal(t, 1, ended, "the Listen of a Table")
	})
}
