//go:build unix

package topo_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

var errDown = errors.New("the source is down")

// said is what a source says: a map, an error, or nothing.
type said struct {
	after time.Duration
	m     *shard.Map
	err   error
}

// script is a source that says what is written. Load says the first, or nothing until
// its context ends.
type script []said

func (s script) Load(ctx context.Context) (*shard.Map, error) {
	if len(s) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(s[0].after):
		return s[0].m, s[0].err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s script) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(yield func(*shard.Map, error) bool) {
		for _, next := range s {
			select {
			case <-time.After(next.after):
			case <-ctx.Done():
				return
			}
			if !yield(next.m, next.err) {
				return
			}
		}
		<-ctx.Done()
	}
}

func cached(t testing.TB, source shard.Source, file *topo.File) *topo.Cached {
	t.Helper()
	c, err := topo.NewCached(source, file, topo.CachedOptions{})
	require.NoError(t, err)
	return c
}

// fileWith is a file with a map of this epoch on the node "file".
func fileWith(t testing.TB, epoch uint64) *topo.File {
	t.Helper()
	f := openFile(t, filepath.Join(t.TempDir(), "shards.json"))
	require.NoError(t, f.Publish(context.Background(), topotest.NewMap(t, epoch, 2, "file")))
	return f
}

func emptyFile(t testing.TB) *topo.File {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "shards.json"))
}

func requireFile(t testing.TB, f *topo.File, epoch uint64, node string) {
	t.Helper()
	m, err := f.Load(context.Background())
	require.NoError(t, err)
	require.Equal(t, epoch, m.Epoch())
	require.Equal(t, node, m.Lookup(0).Node)
}

func TestNewCachedRefusesOptions(t *testing.T) {
	t.Parallel()
	file := emptyFile(t)
	_, err := topo.NewCached(nil, file, topo.CachedOptions{})
	require.ErrorContains(t, err, "source")
	_, err = topo.NewCached(script{}, nil, topo.CachedOptions{})
	require.ErrorContains(t, err, "file")
	_, err = topo.NewCached(script{}, file, topo.CachedOptions{Patience: -1})
	require.ErrorContains(t, err, "CachedOptions.Patience is -1ns, expected")
}

// A store behind a Cached passes the suite of stores, but for what the file hides
// from Load: garbage, and a place that went back or is empty again.
func TestCachedIsASource(t *testing.T) {
	t.Parallel()
	type store struct {
		*topo.Cached
		publisher
	}
	topotest.Run(t, func(t testing.TB) topotest.Place {
		p := filePlace(t)
		open := func(t testing.TB, s topo.Store) topo.Store {
			// The suite waits for maps, and a loaded machine for files: patience is not its subject.
			c, err := topo.NewCached(s, emptyFile(t), topo.CachedOptions{Patience: time.Minute})
			require.NoError(t, err)
			return store{c, publisher{s}}
		}
		place := p
		place.Open = func(t testing.TB) topo.Store { return open(t, p.Open(t)) }
		place.Neighbor = func(t testing.TB) topo.Store { return open(t, p.Neighbor(t)) }
		place.Corrupt, place.Restore, place.Delete = nil, nil, nil
		return place
	})
}

type publisher struct{ s topo.Store }

func (p publisher) Publish(ctx context.Context, m *shard.Map) error { return p.s.Publish(ctx, m) }

func TestCachedLoadAsksTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fileWith(t, 5)
		m, err := cached(t, script{{m: topotest.NewMap(t, 6, 2, "source")}}, file).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(6), m.Epoch())
		requireFile(t, file, 6, "source")
	})
}

// The file answers for a source that fails, hangs, or has nothing, and no later than
// Patience and the deadline.
func TestCachedLoadWithoutTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			source   script
			deadline time.Duration
			takes    time.Duration
		}{
			"fails":           {script{{err: errDown}}, time.Hour, 0},
			"says nothing":    {script{{}}, time.Hour, 0},
			"has no map":      {script{{err: topo.ErrNoMap}}, time.Hour, 0},
			"hangs":           {script{}, time.Hour, time.Second},
			"is slow":         {script{{after: 2 * time.Second, m: topotest.NewMap(t, 9, 2, "source")}}, time.Hour, time.Second},
			"until the limit": {script{}, time.Millisecond, time.Millisecond},
		} {
			file := fileWith(t, 5)
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			start := time.Now()
			m, err := cached(t, c.source, file).Load(ctx)
			require.NoError(t, err, name)
			require.Equal(t, uint64(5), m.Epoch(), name)
			require.Equal(t, c.takes, time.Since(start), name)
			requireFile(t, file, 5, "file")
			cancel()
		}
	})
}

func TestCachedLoadCanBeCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		start := time.Now()
		_, err := cached(t, script{}, fileWith(t, 5)).Load(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, time.Millisecond, time.Since(start))
	})
}

// Without a usable file the error is that of the source.
func TestCachedLoadWithoutAnything(t *testing.T) {
	t.Parallel()
	_, err := cached(t, script{{err: errDown}}, emptyFile(t)).Load(t.Context())
	require.ErrorIs(t, err, errDown)
	require.NotErrorIs(t, err, topo.ErrNoMap, "nobody said that there is none")
	torn := emptyFile(t)
	require.NoError(t, os.WriteFile(torn.Path(), []byte(`{"version":1,"epo`), 0o600))
	_, err = cached(t, script{{err: errDown}}, torn).Load(t.Context())
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, shard.ErrBadMap)
	require.ErrorContains(t, err, torn.Path())
}

// A torn file or one that cannot be written takes nothing from a source that answers.
func TestCachedLoadIgnoresABadFile(t *testing.T) {
	t.Parallel()
	torn := emptyFile(t)
	require.NoError(t, os.WriteFile(torn.Path(), []byte(`{"version":1,"epo`), 0o600))
	nowhere := openFile(t, filepath.Join(t.TempDir(), "no", "such", "folder"))
	for _, file := range []*topo.File{torn, nowhere} {
		m, err := cached(t, script{{m: topotest.NewMap(t, 1, 2, "source")}}, file).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(1), m.Epoch())
	}
	requireFile(t, torn, 1, "source")
}

func TestCachedLoadNeverGoesBehindItsFile(t *testing.T) {
	t.Parallel()
	file := fileWith(t, 5)
	m, err := cached(t, script{{m: topotest.NewMap(t, 4, 2, "source")}}, file).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(5), m.Epoch())
	requireFile(t, file, 5, "file")
	m, err = cached(t, script{{m: topotest.NewMap(t, 5, 2, "source")}}, file).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "source", m.Lookup(0).Node, "of one epoch the source's is right")
	requireFile(t, file, 5, "file")
}

// A publisher that holds the lock of the file and hangs holds up nobody's map.
func TestCachedDoesNotWaitForTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fileWith(t, 5)
		defer topo.LockFile(t, file.Path()+".lock")()
		source := script{{m: topotest.NewMap(t, 6, 2, "source")}, {m: topotest.NewMap(t, 7, 2, "source")}}
		start := time.Now()
		m, err := cached(t, source, file).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(6), m.Epoch())
		require.Equal(t, time.Second, time.Since(start))
		w := watch(t, cached(t, source, file), 5*time.Second)
		require.Equal(t, []uint64{6, 7}, w.epochs)
		require.Equal(t, []time.Duration{0, time.Second}, w.at)
		require.Len(t, w.errors, 2)
		require.ErrorIs(t, w.errors[0], context.DeadlineExceeded)
		require.ErrorContains(t, w.errors[0], "lock")
	})
}

// watched is what a watch yielded.
type watched struct {
	epochs []uint64
	nodes  []string
	at     []time.Duration
	errors []error
}

// watch collects what the source says in d, in a bubble.
func watch(t testing.TB, source shard.Source, d time.Duration) (w watched) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	start := time.Now()
	for m, err := range source.Watch(ctx) {
		if err != nil {
			require.Nil(t, m)
			w.errors = append(w.errors, err)
			continue
		}
		w.epochs, w.nodes = append(w.epochs, m.Epoch()), append(w.nodes, m.Lookup(0).Node)
		w.at = append(w.at, time.Since(start))
	}
	return w
}

// A source that answers promptly is all that a watch yields; the file follows.
func TestCachedWatchOfAPromptSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fileWith(t, 5)
		w := watch(t, cached(t, script{
			{after: time.Second / 2, m: topotest.NewMap(t, 5, 2, "file")},
			{after: time.Hour, m: topotest.NewMap(t, 6, 2, "source")},
			{after: time.Hour, err: errDown},
			{after: time.Hour, m: topotest.NewMap(t, 9, 2, "source")},
		}, file), 24*time.Hour)
		require.Equal(t, []uint64{5, 6, 9}, w.epochs)
		require.Equal(t, []error{errDown}, w.errors)
		requireFile(t, file, 9, "source")
	})
}

// A source that is slow or fails is replaced by the file until it says something newer.
func TestCachedWatchWithoutTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fileWith(t, 5)
		w := watch(t, cached(t, script{{after: time.Hour, m: topotest.NewMap(t, 6, 2, "source")}}, file), 24*time.Hour)
		require.Equal(t, []uint64{5, 6}, w.epochs)
		require.Equal(t, []time.Duration{time.Second, time.Hour}, w.at)
		require.Empty(t, w.errors)

		file = fileWith(t, 5)
		w = watch(t, cached(t, script{
			{err: errDown},
			{err: errDown},
			{after: time.Hour, m: topotest.NewMap(t, 5, 2, "file")},
			{after: time.Hour, m: topotest.NewMap(t, 6, 2, "source")},
		}, file), 24*time.Hour)
		require.Equal(t, []uint64{5, 6}, w.epochs)
		require.Equal(t, []time.Duration{0, 2 * time.Hour}, w.at)
		require.Equal(t, []error{errDown, errDown}, w.errors)
	})
}

// A map of the source that is behind the file, or beside it, is reported.
func TestCachedWatchNeverGoesBehindItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fileWith(t, 5)
		w := watch(t, cached(t, script{
			{m: topotest.NewMap(t, 4, 2, "source")},
			{m: topotest.NewMap(t, 5, 2, "source")},
			{m: topotest.NewMap(t, 6, 2, "source")},
		}, file), time.Hour)
		require.Equal(t, []uint64{5, 6}, w.epochs)
		require.Equal(t, []string{"file", "source"}, w.nodes)
		require.Len(t, w.errors, 2)
		require.ErrorIs(t, w.errors[0], shard.ErrStaleMap)
		require.ErrorIs(t, w.errors[1], shard.ErrSplitBrain)
		requireFile(t, file, 6, "source")

		file = fileWith(t, 5) // which nobody has been given yet
		w = watch(t, cached(t, script{{m: topotest.NewMap(t, 5, 2, "source")}}, file), time.Hour)
		require.Equal(t, []string{"source"}, w.nodes)
		require.Len(t, w.errors, 1)
		require.ErrorIs(t, w.errors[0], shard.ErrSplitBrain)
		require.ErrorContains(t, w.errors[0], file.Path())
		requireFile(t, file, 5, "file")
	})
}

// A bad file is reported and stops no map.
func TestCachedWatchWithABadFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		torn := emptyFile(t)
		require.NoError(t, os.WriteFile(torn.Path(), []byte(`{"version":1,"epo`), 0o600))
		source := script{
			{after: time.Hour, m: topotest.NewMap(t, 1, 2, "source")},
			{after: time.Hour, m: topotest.NewMap(t, 2, 2, "source")},
		}
		w := watch(t, cached(t, source, torn), 3*time.Hour)
		require.Equal(t, []uint64{1, 2}, w.epochs)
		require.Len(t, w.errors, 1)
		require.ErrorIs(t, w.errors[0], shard.ErrBadMap)
		requireFile(t, torn, 2, "source")

		nowhere := openFile(t, filepath.Join(t.TempDir(), "no", "such", "folder"))
		w = watch(t, cached(t, source, nowhere), 3*time.Hour)
		require.Equal(t, []uint64{1, 2}, w.epochs)
		require.Len(t, w.errors, 2, "one for each map that was not kept")
		require.ErrorIs(t, w.errors[0], os.ErrNotExist)
	})
}

// A loop that takes one map and leaves has it in the file.
func TestCachedKeepsTheMapOfALoopThatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := emptyFile(t)
		for range cached(t, script{{m: topotest.NewMap(t, 1, 2, "source")}}, file).Watch(t.Context()) {
			break
		}
		requireFile(t, file, 1, "source")
	})
}

// Whatever a source says, and whatever is in the file: epochs rise, in the watch and in
// the file, the source's newest map gets through unless the file was ahead, and each
// error of the source is passed on.
func TestCachedWatchAgainstModel(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			file, err := topo.NewFile(filepath.Join(folder, "shards.json"), topo.FileOptions{})
			require.NoError(t, err)
			require.NoError(t, os.RemoveAll(file.Path()))
			kept := uint64(0) // nothing is
			if rapid.Bool().Draw(t, "kept") {
				kept = rapid.Uint64Range(1, 6).Draw(t, "epoch kept")
				require.NoError(t, file.Publish(context.Background(), mapOf(t, kept)))
			}
			var source script
			best, down := kept, 0
			for range rapid.IntRange(0, 8).Draw(t, "length") {
				s := said{after: time.Duration(rapid.IntRange(0, 20).Draw(t, "after")) * 100 * time.Millisecond, err: errDown}
				if epoch := rapid.Uint64Range(0, 6).Draw(t, "epoch, 0 is an error"); epoch > 0 {
					s.m, s.err = mapOf(t, epoch), nil
					best = max(best, epoch)
				} else {
					down++
				}
				source = append(source, s)
			}
			c, err := topo.NewCached(source, file, topo.CachedOptions{})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			last := uint64(0)
			for m, err := range c.Watch(ctx) {
				switch {
				case errors.Is(err, errDown):
					down--
				case err != nil:
					require.ErrorIs(t, err, shard.ErrStaleMap)
				default:
					require.Greater(t, m.Epoch(), last)
					last = m.Epoch()
				}
			}
			require.Zero(t, down)
			require.Equal(t, best, last)
			m, err := file.Load(context.Background())
			if best == 0 {
				require.ErrorIs(t, err, topo.ErrNoMap)
			} else {
				require.NoError(t, err)
				require.Equal(t, best, m.Epoch())
			}
		})
	})
}

func mapOf(t require.TestingT, epoch uint64) *shard.Map {
	m, err := shard.NewMap(epoch, shard.Shard{Node: "db"})
	require.NoError(t, err)
	return m
}
