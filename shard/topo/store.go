package topo

import (
	"context"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/internal/feed"
)

// ErrNoMap is returned by Load when nothing has been published yet, and yielded once by
// Watch, which then waits for the first map. Watch yields it too when a map is deleted.
var ErrNoMap = feed.ErrNoMap

// Store is a source that maps can be published in. A Store is safe for concurrent use by
// multiple goroutines, and any number of processes may use one place at once.
//
// Load and Watch are those of [shard.Source]. A map that the place holds and that is
// none, an error that wraps [shard.ErrBadMap] and says where it is, never takes effect.
type Store interface {
	shard.Source

	// Publish makes m the newest map. The store itself compares and sets, so that its
	// epochs only rise and every map is whole, whoever publishes at the same time and
	// whoever is killed. Returns nil also if m is what the store holds already, an
	// error that wraps shard.ErrStaleMap if the store has a higher epoch and one that
	// wraps shard.ErrSplitBrain if it has the same with other content: of two that
	// publish the same next epoch, one wins. After any other error m may have been
	// published or not; to publish it again is safe.
	Publish(ctx context.Context, m *shard.Map) error
}
