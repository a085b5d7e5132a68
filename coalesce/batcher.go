package coalesce

import (
	"context"
	"iter"
	"time"
)

// A Batcher loads many keys with one fetch. (Being built.)
type Batcher[K comparable, V any] struct {
	Fetch       func(ctx context.Context, keys []K) (map[K]V, error)
	MaxBatch    int
	MaxInFlight int
	Linger      time.Duration
	Timeout     time.Duration
}

// Errors has an error for each key that failed. A Fetch returns it, or an error
// that wraps it, as its error.
type Errors[K comparable] map[K]error

func (e Errors[K]) Error() string { panic("being built") }

// Load returns the value of key.
func (b *Batcher[K, V]) Load(ctx context.Context, key K) (V, error) { panic("being built") }

// LoadAll returns the values of keys, in their order.
func (b *Batcher[K, V]) LoadAll(ctx context.Context, keys []K) iter.Seq2[K, Result[V]] {
	panic("being built")
}

// Forget makes the next Load of key start anew.
func (b *Batcher[K, V]) Forget(key K) bool { panic("being built") }

// Close flushes.
func (b *Batcher[K, V]) Close(ctx context.Context) error { panic("being built") }
