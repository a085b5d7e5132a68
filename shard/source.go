package shard

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

var (
	// ErrStaleMap says that a map is older than another. [Router.Update] and
	// [Map.Supersedes] return it for a map of a lower epoch, and the function given
	// to [Router.Do] returns it, best as a [*StaleError], when the shard that it
	// reached no longer owns the key.
	ErrStaleMap = errors.New("shard: stale map")

	// ErrSplitBrain is returned by [Router.Update] and [Map.Supersedes] for a map
	// that has the epoch of the one in use and says something else: two writers of
	// the topology do not know of each other.
	ErrSplitBrain = errors.New("shard: two maps of one epoch")
)

// Source is where the newest map of a keyspace is kept; [Router.Follow] reads it.
// Package topo has sources that live in a SQL table, in a file and, as modules of
// their own, behind PostgreSQL's notifications and in etcd. A Source must be safe for
// concurrent use.
type Source interface {
	// Load returns the newest map. It asks the source itself and not a memory of it,
	// unless the source is down and it is made to remember. It must return soon after ctx
	// has ended. It may be called on any goroutine.
	Load(ctx context.Context) (*Map, error)

	// Watch yields the newest map and then every newer one soon after it was
	// published; one that a still newer has replaced may be left out. An error comes
	// with a nil map and does not end the sequence: the source goes on trying, with
	// pauses of its own. The sequence ends when ctx ends or the loop is left.
	Watch(ctx context.Context) iter.Seq2[*Map, error]
}

// Supersedes reports whether m should take the place of old: true if its epoch is
// higher or old is nil. It is false and no error if m is the same map again. A lower
// epoch is an error that wraps [ErrStaleMap], and the same epoch with another
// [Map.Digest] one that wraps [ErrSplitBrain].
func (m *Map) Supersedes(old *Map) (bool, error) {
	switch {
	case old == nil || m.epoch > old.epoch:
		return true, nil
	case m.epoch < old.epoch:
		return false, fmt.Errorf("%w: epoch %d, expected %d or later", ErrStaleMap, m.epoch, old.epoch)
	case m.digest != old.digest:
		return false, fmt.Errorf("%w: epoch %d with digest %016x, expected %016x", ErrSplitBrain, m.epoch, m.digest, old.digest)
	}
	return false, nil
}

// StaleError is an [ErrStaleMap] that knows which epoch routes the key right, as the fence
// in the shard's own database does.
type StaleError struct {
	// Epoch is the least such epoch. 0 means any that is newer than the caller's.
	Epoch uint64
}

func (e *StaleError) Error() string {
	if e == nil || e.Epoch == 0 {
		return fmt.Sprintf("%v: expected a newer one", ErrStaleMap)
	}
	return fmt.Sprintf("%v: expected epoch %d or later", ErrStaleMap, e.Epoch)
}

// Unwrap returns [ErrStaleMap].
func (e *StaleError) Unwrap() error { return ErrStaleMap }
