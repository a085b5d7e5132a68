package shard

import (
	"context"
	"fmt"
)

// StaleError is an [ErrStaleMap] that knows which epoch the caller needs at least,
// as a fence in the shard's own database does.
type StaleError struct {
	// Epoch is the least epoch that routes the key right; 0 means any newer one.
	Epoch uint64
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: expected epoch %d or later", ErrStaleMap, e.Epoch)
}

// Unwrap returns [ErrStaleMap].
func (e *StaleError) Unwrap() error { return ErrStaleMap }

// Router routes keys by the newest map that it knows.
type Router[K, N any] struct{}

// Update puts m in the place of the map in use.
func (r *Router[K, N]) Update(m *Map) error { panic("being written") }

// Follow keeps the router at the newest map of source until ctx ends.
func (r *Router[K, N]) Follow(ctx context.Context, source Source) error { panic("being written") }

// Do calls fn.
func (r *Router[K, N]) Do(ctx context.Context, key K) error { panic("being written") }
