package shard_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
)

// handle is what the tests' open makes of a node.
type handle struct{ name string }

// nodes opens handles and knows which are open. A node that goes and comes back is opened
// anew, so that it may have two for a while.
type nodes struct {
	mu      sync.Mutex
	open    map[*handle]bool
	refused string
}

func (n *nodes) Open(name string) (*handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name == n.refused {
		return nil, errNotThere
	}
	if n.open == nil {
		n.open = map[*handle]bool{}
	}
	h := &handle{name}
	n.open[h] = true
	return h, nil
}

func (n *nodes) Drop(name string, h *handle) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open[h] || h.name != name {
		panic("dropped what is not open: " + name)
	}
	delete(n.open, h)
}

func (n *nodes) IsOpen(h *handle) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open[h]
}

func (n *nodes) Names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for h := range n.open {
		names = append(names, h.name)
	}
	slices.Sort(names)
	return names
}

var errNotThere = errors.New("not there")

func identity(id shard.ID) shard.ID { return id }

func newRouter(t require.TestingT, n *nodes, m *shard.Map, o shard.RouterOptions[*handle]) *shard.Router[shard.ID, *handle] {
	o.Drop = n.Drop
	r, err := shard.NewRouter(identity, m, n.Open, o)
	require.NoError(t, err)
	return r
}

// A router against a model that is a map and a set of open nodes: updates of every kind,
// calls that are held open over them, routes in between.
func TestRouterBehavesAsItsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			n := &nodes{refused: "refused"}
			inUse := newMap(t, 1, anyTiles().Draw(t, "first")...)
			r := newRouter(t, n, inUse, shard.RouterOptions[*handle]{})
			var held []heldCall
			defer func() { // or a failure would end as a deadlock
				for _, h := range held {
					close(h.end)
				}
			}()
			stats := shard.RouterStats{Epoch: 1, Updates: 1}
			end := func(i int) {
				close(held[i].end)
				require.NoError(t, <-held[i].done)
				held = append(held[:i], held[i+1:]...)
			}
			t.Repeat(map[string]func(*rapid.T){
				"update": func(t *rapid.T) {
					shards := anyTiles().Draw(t, "shards")
					for i := range shards {
						shards[i].Node = rapid.SampledFrom([]string{"node0", "node1", "node2", "node3", "", "refused"}).Draw(t, "node")
					}
					if rapid.IntRange(0, 3).Draw(t, "refusable") > 0 {
						for i := range shards {
							shards[i].Node = map[string]string{"refused": "node4"}[shards[i].Node] + shards[i].Node
						}
					}
					next := newMap(t, inUse.Epoch()+uint64(rapid.IntRange(0, 3).Draw(t, "ahead"))-1, shards...)
					want := expectedUpdate(inUse, next)
					err := r.Update(next)
					if want == nil {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, want)
						stats.Refused++
					}
					if want == nil && next.Epoch() > inUse.Epoch() {
						inUse = next
						stats.Updates++
					}
				},
				"update to the same": func(t *rapid.T) {
					require.NoError(t, r.Update(inUse))
				},
				"begin a call": func(t *rapid.T) {
					h := heldCall{m: inUse, end: make(chan struct{}), done: make(chan error, 1)}
					id := anyID().Draw(t, "key")
					stats.Calls++
					go func() {
						h.done <- r.Do(context.Background(), id, func(_ context.Context, target shard.Target[*handle]) error {
							<-h.end
							if target.Shard != h.m.Lookup(id) || target.Epoch != h.m.Epoch() || !n.IsOpen(target.Node) {
								return errors.New("the call lost what it began with")
							}
							return nil
						})
					}()
					synctest.Wait()
					held = append(held, h)
				},
				"end a call": func(t *rapid.T) {
					if len(held) > 0 {
						end(rapid.IntRange(0, len(held)-1).Draw(t, "which"))
					}
				},
				"": func(t *rapid.T) {
					id := anyID().Draw(t, "key")
					target := r.Route(id)
					require.Same(t, inUse.Lookup(id), target.Shard)
					require.Equal(t, target.Shard.Node, target.Node.name)
					require.Equal(t, inUse.Epoch(), target.Epoch)
					snapshot := r.Snapshot()
					require.Same(t, inUse, snapshot.Map())
					require.Equal(t, target, snapshot.Lookup(id))
					requireHandles(t, n, snapshot, held)
					stats.Epoch = inUse.Epoch()
					require.Equal(t, stats, r.Stats())
				},
			})
			for len(held) > 0 {
				end(0)
			}
			requireHandles(t, n, r.Snapshot(), nil)
		})
	})
}

// heldCall is a call that began by a map and has not ended.
type heldCall struct {
	m    *shard.Map
	end  chan struct{}
	done chan error
}

func expectedUpdate(inUse, next *shard.Map) error {
	switch {
	case next.Epoch() < inUse.Epoch():
		return shard.ErrStaleMap
	case next.Epoch() == inUse.Epoch() && next.Digest() != inUse.Digest():
		return shard.ErrSplitBrain
	case next.Epoch() == inUse.Epoch():
		return nil
	}
	for node := range next.ByNode() {
		if node == "refused" {
			return shard.ErrUnknownNode
		}
	}
	return nil
}

// requireHandles compares what is open with what the map in use has and what calls that
// began by older maps may use.
func requireHandles(t *rapid.T, n *nodes, snapshot shard.Snapshot[*handle], held []heldCall) {
	for node := range snapshot.Map().ByNode() {
		h, ok := snapshot.Node(node)
		require.True(t, ok)
		require.Equal(t, node, h.name)
		require.True(t, n.IsOpen(h))
	}
	require.Len(t, maps.Collect(snapshot.Nodes()), len(maps.Collect(snapshot.Map().ByNode())))
	_, ok := snapshot.Node("no such")
	require.False(t, ok)
	if len(held) == 0 {
		require.Len(t, n.Names(), len(maps.Collect(snapshot.Nodes())), "nobody can use more")
	}
}

// Under the race detector: routes during updates see one map each, whole.
func TestRoutesDuringUpdatesSeeOneMap(t *testing.T) {
	t.Parallel()
	n := &nodes{}
	at := func(epoch uint64) *shard.Map {
		cuts := make([]shard.ID, epoch%7)
		for i := range cuts {
			cuts[i] = shard.ID(i+1) << 58
		}
		shards := tiles(cuts)
		for i := range shards {
			shards[i].Node = fmt.Sprint("epoch", epoch)
		}
		return newMap(t, epoch, shards...)
	}
	r := newRouter(t, n, at(1), shard.RouterOptions[*handle]{})
	const last = 300
	var all sync.WaitGroup
	for range 2 { // two writers of the same maps: one of them is always late
		all.Go(func() {
			for epoch := range uint64(last) {
				if err := r.Update(at(epoch + 1)); err != nil && !errors.Is(err, shard.ErrStaleMap) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 3 {
		all.Go(func() {
			for seen := uint64(0); seen < last; {
				err := r.Do(t.Context(), shard.ID(i)<<61, func(_ context.Context, target shard.Target[*handle]) error {
					if target.Node.name != fmt.Sprint("epoch", target.Epoch) || target.Shard.Node != target.Node.name || target.Epoch < seen {
						return fmt.Errorf("torn: %+v after epoch %d", target, seen)
					}
					seen = target.Epoch
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, []string{fmt.Sprint("epoch", last)}, n.Names())
}

func TestARefusedMapTakesNoEffect(t *testing.T) {
	t.Parallel()
	n := &nodes{refused: "gone"}
	first := newMap(t, 1, shard.Shard{Range: parse(t, "-80"), Node: "a"}, shard.Shard{Range: parse(t, "80-"), Node: "b"})
	r := newRouter(t, n, first, shard.RouterOptions[*handle]{})
	err := r.Update(newMap(t, 2, shard.Shard{Range: parse(t, "-40"), Node: "c"}, shard.Shard{Range: parse(t, "40-80"), Node: "gone"}, shard.Shard{Range: parse(t, "80-"), Node: "a"}))
	require.ErrorIs(t, err, shard.ErrUnknownNode)
	require.ErrorIs(t, err, errNotThere)
	require.ErrorContains(t, err, `"gone" of shard "40-80"`)
	require.Same(t, first, r.Snapshot().Map())
	require.Equal(t, []string{"a", "b"}, n.Names(), "c was opened for it and is dropped")

	require.ErrorIs(t, r.Update(nil), shard.ErrBadMap)
	require.ErrorIs(t, r.Update(new(shard.Map)), shard.ErrBadMap)
	require.ErrorIs(t, r.Update(newMap(t, 0, shard.Shard{Node: "a"})), shard.ErrStaleMap)
	err = r.Update(newMap(t, 1, shard.Shard{Node: "a"}))
	require.ErrorIs(t, err, shard.ErrSplitBrain)
	require.ErrorContains(t, err, fmt.Sprintf("%016x", first.Digest()))
	require.Same(t, first, r.Snapshot().Map())
	require.Equal(t, int64(5), r.Stats().Refused)
}

func TestNewRouterSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	n := &nodes{refused: "gone"}
	m := newMap(t, 1, shard.Shard{})
	_, err := shard.NewRouter[shard.ID](nil, m, n.Open, shard.RouterOptions[*handle]{})
	require.ErrorContains(t, err, "hash or open is nil")
	_, err = shard.NewRouter[shard.ID, *handle](identity, m, nil, shard.RouterOptions[*handle]{})
	require.ErrorContains(t, err, "hash or open is nil")
	_, err = shard.NewRouter(identity, nil, n.Open, shard.RouterOptions[*handle]{})
	require.ErrorIs(t, err, shard.ErrBadMap)
	_, err = shard.NewRouter(identity, newMap(t, 1, shard.Shard{Node: "gone"}), n.Open, shard.RouterOptions[*handle]{})
	require.ErrorIs(t, err, shard.ErrUnknownNode)
	_, err = shard.NewRouter(identity, m, n.Open, shard.RouterOptions[*handle]{BufferTimeout: -time.Second})
	require.ErrorContains(t, err, "BufferTimeout is -1s, expected 0 or more")
}

func TestRouteAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRouter(t, &nodes{}, newMap(t, 1, tiles([]shard.ID{1, 2, 3})...), shard.RouterOptions[*handle]{})
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Route(7) }))
	fn := func(context.Context, shard.Target[*handle]) error { return nil }
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = r.Do(ctx, 7, fn) }))
}
