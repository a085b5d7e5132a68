package coalesce

import (
	"context"
)

func (c *Cache[K, V]) fetchBatched(ctx context.Context, hash uint64, key K) (*record[V], error) {
	panic("todo")
}
